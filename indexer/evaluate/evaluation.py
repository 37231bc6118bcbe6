"""`evaluate_index`: all figures of one index on one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from indexer.errors import UsageError
from indexer.evaluate.bootstrap import Figure
from indexer.evaluate.classification import ClassRow, class_figures, class_rows, classes_of, video_scores
from indexer.evaluate.questions import Questions, Skipped, read_questions
from indexer.evaluate.retrieval import Answer, Moments, moment_figures, rank_figures, text_to_video, video_to_text
from indexer.query.heads import classify_index
from indexer.query.results import ClassifiedMoment
from indexer.query.video_index import VideoIndex

TEXT_TO_VIDEO, VIDEO_TO_TEXT, MOMENTS = "text to video", "video to text", "moments"
ZERO_SHOT, TRAINED = "zero-shot classification", "classification by the head"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: what was asked of what, and its figures by name."""

    questions: int
    candidates: int
    figures: dict[str, Figure]


@dataclass
class Evaluation:
    """All figures of one index on one table.

    Attributes:
        index, data, model: what was measured, on what, with which model.
        videos, moments: how many the index holds.
        rows: of the table.
        skipped: rows left out, by reason.
        tasks: by name, those that the table has data for.
        answers: one a caption.
        classes: per class, by the name of the task.
    """

    index: str
    data: str
    model: str
    videos: int
    moments: int
    rows: int
    skipped: dict[str, Skipped]
    tasks: dict[str, Task] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    classes: dict[str, list[ClassRow]] = field(default_factory=dict)


def evaluate_index(index: VideoIndex, data: str, head: str | None = None) -> Evaluation:
    """Measures an index on a table of captions, spans or labels. Decodes nothing; rankings are exact.

    Args:
        index: an open index.
        data: .tsv, .csv or .parquet; see `read_questions`.
        head: file of a trained classification head, to be measured on the same labels.

    Raises:
        UsageError: as `read_questions`; or a head is given and the table has no labels, or none that the head knows.
        ModelError, IndexSettingsError: the head cannot be read, or was trained on the features of another model.
    """
    if not index.num_segments:
        raise UsageError(f"the index {str(index.path)!r} holds no moments: index some videos first")
    questions = read_questions(data, index.videos)
    evaluation = Evaluation(
        index=str(index.path),
        data=data,
        model=index.model,
        videos=index.num_videos,
        moments=index.num_segments,
        rows=questions.num_rows,
        skipped=questions.skipped,
    )
    if questions.captions:
        _retrieve(index, questions, evaluation)
    if questions.labels:
        _classify(index, questions, evaluation, head)
    elif head is not None:
        raise UsageError(f"the table {data!r} has no labels to measure the head on: add a column named label")
    return evaluation


def _retrieve(index: VideoIndex, questions: Questions, evaluation: Evaluation) -> None:
    captions, moments = questions.captions, Moments(index)
    queries = index.encode_texts([caption.text for caption in captions])
    num_videos, num_captions = len(moments.videos), len(captions)
    evaluation.answers = text_to_video(moments, captions, queries)
    ranks = np.array([answer.rank for answer in evaluation.answers])
    owners = np.array([moments.number[caption.video] for caption in captions])
    evaluation.tasks[TEXT_TO_VIDEO] = Task(
        questions=num_captions,
        candidates=num_videos,
        figures=rank_figures(ranks, owners, num_videos, np.ones(num_captions, dtype=np.int64)),
    )
    videos, ranks = video_to_text(moments, captions, queries)
    num_right = np.bincount(owners)[videos]
    evaluation.tasks[VIDEO_TO_TEXT] = Task(
        questions=len(videos),
        candidates=num_captions,
        figures=rank_figures(ranks, videos, num_captions, num_right),
    )
    with_spans = [caption for caption in captions if caption.spans]
    if with_spans:
        evaluation.tasks[MOMENTS] = Task(
            questions=len(with_spans),
            candidates=len(moments.vectors),
            figures=moment_figures(index, moments, with_spans),
        )


def _classify(index: VideoIndex, questions: Questions, evaluation: Evaluation, head: str | None) -> None:
    classes = classes_of(questions.labels)
    uris = index.snapshot.videos["uri"].to_pylist()
    owners = [uris[row] for row in index.snapshot.rows.video_rows]
    _measure(ZERO_SHOT, questions, evaluation, classes, owners, index.label_scores(classes))
    if head is not None:
        moments = classify_index(index, head)
        owners = [moment.video for moment in moments]
        _measure(TRAINED, questions, evaluation, classes, owners, _scores_of(moments, classes, evaluation.data, head))


def _scores_of(moments: Sequence[ClassifiedMoment], classes: Sequence[str], data: str, head: str) -> np.ndarray:
    """Scores [N, C + 1] of a head for the classes of the data; 0 for those that it was not trained on."""
    known = sorted(label.label for label in moments[0].labels)
    if not set(known) & set(classes):
        raise UsageError(
            f"the head {head!r} knows none of the labels in {data!r}: it was trained on "
            f"{', '.join(map(repr, known[:5]))}, the table has {', '.join(map(repr, classes[:5]))}"
        )
    named = [{label.label: label.score for label in moment.labels} for moment in moments]
    rows = [
        [*(scores.get(label, 0.0) for label in classes), moment.none_of_these]
        for scores, moment in zip(named, moments, strict=True)
    ]
    return np.array(rows)


def _measure(
    task: str,
    questions: Questions,
    evaluation: Evaluation,
    classes: Sequence[str],
    owners: Sequence[str],
    scores: np.ndarray,
) -> None:
    """Adds one task of classification, from the scores [N, C + 1] of moments and the video that each is of."""
    videos = sorted(questions.labels)
    truth = np.array([[label in questions.labels[uri] for label in classes] for uri in videos])
    by_video = video_scores(videos, owners, scores)
    evaluation.tasks[task] = Task(
        questions=len(videos), candidates=len(classes), figures=class_figures(by_video, truth)
    )
    evaluation.classes[task] = class_rows(by_video, truth, classes)
