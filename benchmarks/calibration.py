"""An honest answer: are captions of videos that are there matched, and is what is not there left unmatched?

    python -m benchmarks.calibration                                        # the demo videos
    python -m benchmarks.calibration --videos FOLDER --captions FILE.tsv

All videos are indexed with the default settings. Then parts of the index of several sizes are searched, each calibrated
by itself. Questions with an answer are the captions (columns `file`, `caption`) and the short phrases of
benchmarks/clip_phrases.tsv of the videos in the part. Questions without one are nonsense and absent topics
(benchmarks/unanswerable.tsv, less the topics that share a word with a caption), and captions of videos outside the
part; these are no clean test, for a caption often fits a second video. A false alarm is nonsense or an absent topic
that is matched, both weighing the same.

Videos and questions are halved. The confidence that gives 5 % false alarms is found on one half and used on the other,
and the other way round; "at 5 %" is the mean of both. "In use" is MATCH_CONFIDENCE. Each figure has beside it, as
"was", that of the share of everyday sentences whose best cosine is lower, which is what a cosine alone can say.
"""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.config import DEFAULT_MODEL, RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.query.calibration import MATCH_CONFIDENCE, Calibration, background_vectors
from model.augment_text import stop_words

_HERE = Path(__file__).parent
_DEMO_CAPTIONS = _HERE.parent / "demo" / "captions.tsv"
_SIZES = {3: 60, 10: 30, 30: 15}  # videos in a part, and how many parts are drawn
_FALSE_ALARMS = 0.05
_KINDS = ("caption", "phrase", "nonsense", "absent", "caption, its video away", "phrase, its video away")
_HITS = 3

# A part of an index and vectors of queries with their texts, to the confidence of the best hit of each.
Judge = Callable[["Part", np.ndarray, Sequence[str]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Question:
    """A text, what it is, and the video that answers it, if any."""

    text: str
    kind: str
    video: str | None = None


class Part:
    """Some moments of an index, searched by brute force: what `Calibration` asks of a snapshot."""

    def __init__(self, vectors: np.ndarray, videos: np.ndarray) -> None:
        self.vectors = vectors
        self.num_segments = len(vectors)
        self.rows = SimpleNamespace(video_rows=videos)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ self.vectors.T
        rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, rows, 1), rows

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        return self.vectors[rows]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Confidences float [J], and for each the kind of its question and the half that it belongs to."""

    confidence: np.ndarray
    kind: np.ndarray
    half: np.ndarray

    def of(self, kind: str, half: int | None = None) -> np.ndarray:
        return self.confidence[(self.kind == kind) & ((self.half == half) | (half is None))]

    def false_alarms(self, least: float, half: int | None = None) -> float:
        return float(np.mean([(self.of(kind, half) >= least).mean() for kind in ("nonsense", "absent")]))

    def least_confidence(self, half: int) -> float:
        """The lowest one with at most 5 % false alarms."""
        steps = np.unique(np.concatenate([self.confidence, [np.nextafter(1, 2)]]))
        return float(next(step for step in steps if self.false_alarms(step, half) <= _FALSE_ALARMS))

    def at_five_percent(self, kind: str) -> float:
        """Matched with the least confidence of the other half, mean of both halves."""
        return float(np.mean([(self.of(kind, half) >= self.least_confidence(1 - half)).mean() for half in (0, 1)]))

    def auc(self, kind: str) -> float:
        """How often a question of a kind gets more confidence than nonsense or an absent topic; ties count half."""
        found = self.of(kind)[:, None]
        return float(np.mean([_better(found, self.of(other)[None]) for other in ("nonsense", "absent")]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--captions", type=Path, default=_DEMO_CAPTIONS, help="TSV with the columns file and caption")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos, into = arguments.videos or demo_videos(Path(scratch) / "videos"), Path(scratch) / "index"
        index_videos([str(videos)], into, model=arguments.model, sampling=SamplingConfig(), run=RunConfig())
        index = VideoIndex.open(into)
        report("calibration", _figures(index, _questions(arguments.captions, index), arguments.model))


def _questions(captions: Path, index: VideoIndex) -> list[Question]:
    names = {Path(uri).name for uri in index.videos}
    told = {Path(row["file"]).name: row["caption"] for row in reversed(_rows(captions)) if row["caption"]}
    known = {name: text for name, text in told.items() if name in names}
    phrases = {row["file"]: row["phrase"] for row in _rows(_HERE / "clip_phrases.tsv") if row["file"] in known}
    taken = _words(" ".join([*known.values(), *phrases.values()]))
    without = [row for row in _rows(_HERE / "unanswerable.tsv") if row["kind"] == "nonsense" or row["query"]]
    return [
        *(Question(text=text, kind="caption", video=name) for name, text in sorted(known.items())),
        *(Question(text=text, kind="phrase", video=name) for name, text in sorted(phrases.items())),
        *(
            Question(text=row["query"], kind=row["kind"])
            for row in without
            if row["kind"] == "nonsense" or not _words(row["query"]) & taken
        ),
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_MINIMAL))


def _words(text: str) -> set[str]:
    """Telling words, without the endings that make a plural."""
    return {word.removesuffix("s") for word in re.findall(r"[a-z]+", text.lower()) if word not in stop_words()}


def _figures(index: VideoIndex, questions: Sequence[Question], model: str) -> dict[str, Any]:
    snapshot = index.snapshot
    names = np.array([Path(uri).name for uri in snapshot.videos["uri"].to_pylist()])
    vectors, videos = snapshot.embeddings(), names[snapshot.rows.video_rows]
    asked = index.encode_texts([question.text for question in questions])
    encoder, fingerprint = index.text_encoder, snapshot.config.model_fingerprint
    everyday = background_vectors(encoder, fingerprint)
    judges: dict[str, Judge] = {
        "now": lambda part, queries, texts: _calibrated(part, queries, texts, encoder, fingerprint),
        "was": lambda part, queries, texts: _by_cosine(part, queries, everyday),
    }
    count = {kind: sum(question.kind == kind for question in questions) for kind in _KINDS[:4]}
    figures: dict[str, Any] = {"model": model, "videos, moments": f"{len(set(videos))}, {len(vectors)}", **count}
    for label, parts in _parts(sorted(set(videos))).items():
        judged = {
            name: _judged(judge, parts, questions, asked, vectors, videos, label == "each video away once")
            for name, judge in judges.items()
        }
        figures |= {f"{label}: {figure}": text for figure, text in _of_parts(judged).items()}
    return figures


def _parts(names: Sequence[str]) -> dict[str, list[list[str]]]:
    """Names of the videos in each part."""
    random = np.random.default_rng(0)
    parts = {
        f"{size} videos": [sorted(random.choice(names, size, replace=False)) for _ in range(num)]
        for size, num in _SIZES.items()
        if size < len(names)
    }
    away = [[name for name in names if name != left_out] for left_out in names]
    return {**parts, f"all {len(names)} videos": [list(names)], "each video away once": away}


def _judged(
    judge: Judge,
    parts: Iterable[Sequence[str]],
    questions: Sequence[Question],
    asked: np.ndarray,
    vectors: np.ndarray,
    videos: np.ndarray,
    only_away: bool,
) -> Judged:
    """All questions to all parts; with `only_away`, those alone whose video is not in the part."""
    names = sorted(set(videos))
    half_of_video = {name: number % 2 for number, name in enumerate(names)}
    confidences, kinds, halves = [], [], []
    for kept in parts:
        inside = np.isin(videos, kept)
        numbers = [i for i, one in enumerate(questions) if not (only_away and (one.video is None or one.video in kept))]
        part = Part(vectors[inside], np.unique(videos[inside], return_inverse=True)[1])
        confidences.append(judge(part, asked[numbers], [questions[i].text for i in numbers]))
        for i in numbers:
            one = questions[i]
            is_away = one.video is not None and one.video not in kept
            kinds.append(f"{one.kind}, its video away" if is_away else one.kind)
            halves.append(i % 2 if one.video is None else half_of_video[one.video])
    return Judged(confidence=np.concatenate(confidences), kind=np.array(kinds), half=np.array(halves))


def _calibrated(part: Part, queries: np.ndarray, texts: Sequence[str], encoder: Any, fingerprint: str) -> np.ndarray:
    calibration = Calibration.fit(part, encoder, fingerprint)  # type: ignore[arg-type]
    scores, rows = part.search(queries, _HITS)
    return np.array(
        [
            calibration.confidences(score, part.vectors_of(row), text).max()
            for score, row, text in zip(scores, rows, texts, strict=True)
        ]
    )


def _by_cosine(part: Part, queries: np.ndarray, everyday: np.ndarray) -> np.ndarray:
    background = np.sort(part.search(everyday, 1)[0][:, 0])
    return np.searchsorted(background, part.search(queries, 1)[0][:, 0]) / len(background)


def _of_parts(judged: dict[str, Judged]) -> dict[str, str]:
    now, was = judged["now"], judged["was"]
    there = [kind for kind in _KINDS if len(now.of(kind))]
    figures = {f"matched in use, {kind}": f"{(now.of(kind) >= MATCH_CONFIDENCE).mean():.1%}" for kind in there}
    if "absent" not in there or len(now.of("caption")) < 2:
        return figures
    figures["confidence at 5 %"] = " and ".join(f"{now.least_confidence(half):.2f}" for half in (0, 1))
    for kind in there:
        if kind not in ("nonsense", "absent"):
            figures[f"matched at 5 %, {kind}"] = f"{now.at_five_percent(kind):.1%}; was {was.at_five_percent(kind):.1%}"
            figures[f"AUC, {kind}"] = f"{now.auc(kind):.3f}; was {was.auc(kind):.3f}"
    figures["false alarms at 5 % of the other half"] = "; ".join(
        f"{kind} {now.at_five_percent(kind):.1%}" for kind in ("nonsense", "absent")
    )
    return figures


def _better(a: np.ndarray, b: np.ndarray) -> float:
    return float((a > b).mean() + (a == b).mean() / 2)


if __name__ == "__main__":
    main()
