import json
import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexer.errors import IndexSettingsError, UsageError
from indexer.evaluate.evaluation import MOMENTS, TEXT_TO_VIDEO, TRAINED, VIDEO_TO_TEXT, ZERO_SHOT, evaluate_index
from indexer.evaluate.report import markdown, to_dict, write_files

CAPTIONS = "video\tcaption\nred.mp4\tblue\nred.mp4\tred\nblue.mp4\tblue sky\nmixed.mp4\tgreen grass\n"


@pytest.fixture
def evaluate(colours, tmp_path):
    """`evaluate("video\\tcaption\\n...")` on red.mp4, blue.mp4 and mixed.mp4 (yellow, then 20 s of green)."""

    def evaluate(text, **options):
        (tmp_path / "data.tsv").write_text(text)
        return evaluate_index(colours, str(tmp_path / "data.tsv"), **options)

    return evaluate


def brute_force(index, captions):
    """Best score of each video (by name) for each caption, from single cosines."""
    rows, vectors = index.snapshot.rows, index.snapshot.embeddings()
    best = {}
    for text in captions:
        for row, vector in zip(rows.video_rows, vectors, strict=True):
            name = index.snapshot.videos["uri"][int(row)].as_py().rsplit("/", 1)[-1]
            score = float(vector @ index.encode_texts([text])[0])
            best[text, name] = max(score, best.get((text, name), -1))
    return best


def test_figures_are_those_of_single_cosines(evaluate, colours):
    evaluation = evaluate(CAPTIONS)
    pairs = [line.split("\t") for line in CAPTIONS.splitlines()[1:]]
    texts, names = [text for _, text in pairs], ["red.mp4", "blue.mp4", "mixed.mp4"]
    best = brute_force(colours, texts)
    ranks = [1 + sum(best[text, other] > best[text, own] for other in names) for own, text in pairs]
    assert [answer.rank for answer in evaluation.answers] == ranks
    assert max(ranks) > 1, "a caption of the wrong colour is there to be missed"
    figures = evaluation.tasks[TEXT_TO_VIDEO].figures
    assert figures["R@1"].value == np.mean([rank == 1 for rank in ranks])
    assert figures["MRR"].value == pytest.approx(np.mean([1 / rank for rank in ranks]))
    assert figures["median rank"].value == np.median(ranks)
    assert figures["R@1"].chance == pytest.approx(1 / 3)
    back = []
    for name in names:
        own = max(best[text, name] for video, text in pairs if video == name)
        back.append(1 + sum(best[text, name] > own for video, text in pairs if video != name))
    figures = evaluation.tasks[VIDEO_TO_TEXT].figures
    assert (evaluation.tasks[VIDEO_TO_TEXT].questions, evaluation.tasks[VIDEO_TO_TEXT].candidates) == (3, 4)
    assert figures["MRR"].value == pytest.approx(np.mean([1 / rank for rank in back]))


def test_answers_name_the_best_moment_of_the_right_video(evaluate):
    (answer,) = evaluate("video\tcaption\nmixed.mp4\tyellow\n").answers
    assert (answer.rank, answer.start_s, answer.end_s, answer.row) == (1, 0.0, 10.0, 1)
    assert (answer.first_video, answer.first_score) == (answer.video, answer.score)


def test_moments_are_those_that_search_merges(evaluate):
    data = "video\tcaption\tstart_s\tend_s\nmixed.mp4\tgreen\t10\t30\nmixed.mp4\tyellow\t0\t14\nred.mp4\tred\t\t\n"
    task = evaluate(data).tasks[MOMENTS]
    assert task.questions == 2
    values = {name: figure.value for name, figure in task.figures.items()}
    assert values["R@1, IoU 0.5"] == 1.0, "20 s of green are two segments and one moment"
    assert values["R@1, IoU 0.7"] == 1.0, "10 of 14 seconds are more than 0.7"
    assert task.figures["R@1, IoU 0.5"].chance == pytest.approx((2 + 1) / 2 / 5, abs=1e-9)


def test_a_moment_of_another_video_or_place_does_not_count(evaluate):
    data = "video\tcaption\tstart_s\tend_s\nmixed.mp4\tgreen\t0\t5\n"
    figures = evaluate(data).tasks[MOMENTS].figures
    assert figures["R@1, IoU 0.3"].value == 0
    assert figures["R@10, IoU 0.7"].value == 0


def test_without_spans_there_are_no_moments_and_without_labels_no_classes(evaluate):
    assert set(evaluate(CAPTIONS).tasks) == {TEXT_TO_VIDEO, VIDEO_TO_TEXT}


def test_classification_tells_the_colours_apart(evaluate):
    evaluation = evaluate("video\tlabels\nred.mp4\tred\nblue.mp4\tblue\nmixed.mp4\tgreen;yellow\n")
    assert set(evaluation.tasks) == {ZERO_SHOT}
    figures = evaluation.tasks[ZERO_SHOT].figures
    assert (figures["top-1"].value, figures["mAP"].value) == (1.0, 1.0)
    assert figures["top-1"].chance == pytest.approx(1 / 3)
    rows = {row.label: row for row in evaluation.classes[ZERO_SHOT]}
    assert (rows["red"].videos, rows["red"].predicted, rows["red"].recall) == (1, 1, 1.0)
    missed = min(("green", "yellow"), key=lambda label: rows[label].predicted)
    assert (rows[missed].predicted, rows[missed].recall) == (0, 0.0)
    assert math.isnan(rows[missed].precision)


def test_wrong_labels_give_low_figures(evaluate):
    figures = evaluate("video\tlabel\nred.mp4\tblue\nblue.mp4\tred\n").tasks[ZERO_SHOT].figures
    assert (figures["top-1"].value, figures["mAP"].value) == (0.0, 0.5)


def test_one_label_alone_is_refused(evaluate):
    with pytest.raises(UsageError, match="at least two different labels in the data, got only 'red'"):
        evaluate("video\tlabel\nred.mp4\tred\nblue.mp4\tred\n")


def test_a_head_is_measured_beside_the_zero_shot_labels(evaluate, colours, tmp_path):
    head = save_head(tmp_path / "head.safetensors", colours.snapshot.config.frames_fingerprint, colours)
    evaluation = evaluate("video\tlabel\nred.mp4\tred\nblue.mp4\tblue\nmixed.mp4\tgrey\n", head=str(head))
    rows = {row.label: row for row in evaluation.classes[TRAINED]}
    assert (rows["red"].recall, rows["blue"].recall) == (1.0, 1.0)
    assert (rows["grey"].predicted, rows["grey"].recall) == (0, 0.0), "the head has no such class"
    assert evaluation.tasks[TRAINED].figures["top-1"].value == pytest.approx(2 / 3)


def test_a_head_of_another_model_or_other_labels_is_refused(evaluate, colours, tmp_path):
    labels = "video\tlabel\nred.mp4\tred\nblue.mp4\tblue\n"
    with pytest.raises(IndexSettingsError, match="trained on the frame features of another model"):
        evaluate(labels, head=str(save_head(tmp_path / "other.safetensors", "0" * 32, colours)))
    head = save_head(tmp_path / "head.safetensors", colours.snapshot.config.frames_fingerprint, colours)
    with pytest.raises(UsageError, match="knows none of the labels"):
        evaluate("video\tlabel\nred.mp4\tx\nblue.mp4\ty\n", head=str(head))
    with pytest.raises(UsageError, match="has no labels to measure the head on"):
        evaluate(CAPTIONS, head=str(head))


def save_head(path, fingerprint, index):
    """A head that tells "red" from "blue", set by hand from the features of the two videos."""
    import torch

    from model.classifier import Classifier, save_classifier

    snapshot = index.snapshot
    table = snapshot.read(np.arange(snapshot.num_segments), ["frame_features"]).to_pylist()
    names = [snapshot.videos["uri"][int(row)].as_py().rsplit("/", 1)[-1] for row in snapshot.rows.video_rows]
    means = [
        np.frombuffer(row["frame_features"], "<f2").reshape(-1, 32).astype(np.float32).mean(axis=0) for row in table
    ]
    classifier = Classifier(["red", "blue"], 32, multi_label=False, frames_fingerprint=fingerprint)
    with torch.no_grad():
        towards = torch.from_numpy(means[names.index("red.mp4")] - means[names.index("blue.mp4")])
        middle = torch.from_numpy(means[names.index("red.mp4")] + means[names.index("blue.mp4")]) / 2
        classifier.head.output.weight.copy_(10 * torch.stack([towards, -towards]))
        classifier.head.output.bias.copy_(10 * torch.stack([-towards @ middle, towards @ middle]))
    save_classifier(classifier, path)
    return path


def test_files_hold_what_was_measured(evaluate, tmp_path):
    evaluation = evaluate(
        "video\tcaption\tlabel\nred.mp4\tred | paint\tred\nblue.mp4\tblue\tblue\nnone.mp4\tx\t\nblue.mp4\t\t\n"
    )
    paths = write_files(evaluation, str(tmp_path / "new" / "out"))
    metrics, report, queries = (tmp_path / "new" / "out" / path.rsplit("/", 1)[-1] for path in paths)
    assert json.loads(metrics.read_text()) == json.loads(json.dumps(to_dict(evaluation)))
    assert pq.read_table(queries).column("query").to_pylist() == ["red | paint", "blue"]
    assert report.read_text() == markdown(evaluation)
    assert "1 of 4 rows: video not in the index; first row 3 ('none.mp4')" in report.read_text()
    widths = {line.replace("\\|", "").count("|") for line in report.read_text().splitlines() if line.startswith("|")}
    assert widths == {6, 7}


def test_an_empty_index_is_refused(copied_colours):
    from indexer.query.video_index import VideoIndex
    from indexer.store.index import IndexStore

    ledger = IndexStore.open(copied_colours).ledger
    ledger.remove(ledger.snapshot().videos["video_id"].to_pylist())
    with pytest.raises(UsageError, match="holds no moments"):
        evaluate_index(VideoIndex.open(copied_colours), "any.tsv")
