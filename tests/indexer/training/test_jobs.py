"""Whole runs with the tiny model, in this process."""

import json
import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from indexer.errors import UsageError
from indexer.store.index import IndexStore
from indexer.training.captions import CaptionTask, caption_config, trainable_model
from indexer.training.dataset import FeatureSet
from indexer.training.items import Items
from indexer.training.job import Job, work
from indexer.training.prepare import prepare_pretraining
from model import load_model, preset
from model.classifier import load_classifier
from model.errors import TrainingError
from model.facts import frames_fingerprint
from model.pretraining import PretrainingSettings
from model.training import Trainer
from model.training_plan import TrainingSettings
from model.training_state import STATE_FILE
from model.weights import load_videobert


def scalars(folder) -> EventAccumulator:
    return EventAccumulator(str(Path(folder) / "tensorboard")).Reload()


def test_captions_teach_the_model_words_that_it_did_not_know(captions, prepare, train_here, tmp_path):
    prepared = prepare(captions, num_epochs=30, batch_size=32, held_out_share=0.25)
    result = train_here(prepared)
    assert (prepared.items, prepared.held_out) == (30, 10)
    model, untrained = load_model(str(tmp_path / "out.safetensors")), load_model("tiny_test")
    features = FeatureSet(Path(prepared.job.folder)).batch(range(40))
    held_out = Items.load(Path(prepared.job.folder)).held_out
    colours = np.arange(40)[held_out] % 3
    for trained, least, most in ((model, 0.9, 1), (untrained, 0, 0.7)):
        videos = trained.encode_video(*features)[torch.from_numpy(held_out)]
        asked = trained.encode_text(["an alpha one", "a beta two", "a gamma three"])
        right = ((videos @ asked.T).argmax(dim=1).numpy() == colours).mean()
        assert least <= right <= most
    assert result["metrics"]["recall@10"] == 100.0
    assert not (Path(prepared.job.folder) / STATE_FILE).exists()


def test_captions_leave_the_vectors_as_they_are_before_the_first_step(captions, prepare):
    prepared = prepare(captions)
    base = load_videobert("tiny_test")
    model = trainable_model(base).eval()
    features = FeatureSet(Path(prepared.job.folder)).batch(range(40))
    torch.testing.assert_close(model.encode_video(*features), base.encode_video(*features))
    texts = ["alpha", "a red thing"]
    torch.testing.assert_close(model.encode_text(texts), base.encode_text(texts))
    both = [None if i % 2 else "alpha" for i in range(40)]
    assert torch.isfinite(model.encode_video(*features, both)).all()


def test_caption_config_keeps_what_was_trained_before():
    config = caption_config(preset("mini"))
    assert config == preset("mini")
    assert caption_config(preset("mini-zero")).trained == (
        "fusion.frame_head.",
        "gate",
        "text_encoder.adapter.",
    )


def test_captions_scalars_are_those_of_every_step(captions, prepare, train_here):
    prepared = prepare(captions, num_epochs=3, batch_size=10, held_out_share=0.25)
    train_here(prepared)
    events = scalars(prepared.job.folder)
    assert [event.step for event in events.Scalars("loss/contrastive")] == list(range(1, 10))
    assert [event.step for event in events.Scalars("validation/recall@5")] == [3, 6, 9]
    assert {"learning_rate", "gradient_norm", "items_per_s"} <= set(events.Tags()["scalars"])
    assert events.Scalars("learning_rate")[0].value == pytest.approx(0.01)


def test_classes_are_told_apart_and_reported(colour_folder, prepare, train_here, tmp_path):
    result = train_here(prepare(colour_folder, num_epochs=20, held_out_share=0.3))
    assert result["metrics"]["top_1"] == 100.0
    assert result["metrics"]["mean_average_precision"] == 1.0
    metrics = tmp_path / "out.run" / "metrics"
    table = pq.read_table(metrics / "classes.parquet").to_pylist()
    assert [(row["label"], row["items"], row["f1"]) for row in table] == [
        ("blue", 3, 1.0),
        ("green", 3, 1.0),
        ("red", 3, 1.0),
    ]
    assert (metrics / "classes.csv").read_text().splitlines()[0].startswith('"label","items","predicted"')
    assert json.loads((metrics / "metrics.json").read_text())["top_1"] == 100.0
    assert (metrics / "confusion.png").stat().st_size > 100
    assert scalars(tmp_path / "out.run").Tags()["images"] == ["confusion"]
    classifier = load_classifier(tmp_path / "out.safetensors")
    assert classifier.labels == ["blue", "green", "red"]
    assert classifier.frames_fingerprint == frames_fingerprint("tiny_test")


def test_classes_with_several_labels_are_each_told(tmp_path, write_image, prepare, train_here):
    lines = ["path,labels"]
    for number in range(30):
        colour = ("red", "green", "blue")[number % 3]
        write_image(tmp_path / f"{number}.png", colour, number)
        lines.append(
            f"{number}.png,{'warm;bright' if colour == 'red' else 'cold' if colour == 'blue' else 'cold;bright'}"
        )
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    result = train_here(prepare(tmp_path / "rows.csv", num_epochs=30, held_out_share=0.3))
    assert result["metrics"]["mean_average_precision"] == pytest.approx(1.0)
    assert "top_1" not in result["metrics"]
    assert load_classifier(tmp_path / "out.safetensors").multi_label


def test_bad_rows_are_left_out_and_listed(colour_folder, prepare, train_here):
    (colour_folder / "red" / "broken.jpg").write_text("no image")
    prepared = prepare(colour_folder)
    assert [problem.name for problem in prepared.left_out] == ["red/broken.jpg"]
    assert "red/broken.jpg\tthe image cannot be read" in (Path(prepared.job.folder) / "left_out.tsv").read_text()
    again = prepare(colour_folder)
    assert again.left_out == prepared.left_out, "also where nothing is prepared again"


def test_data_of_which_no_file_can_be_read_is_refused(tmp_path, prepare):
    for name in ("one/a.jpg", "two/b.jpg"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text("no image")
    with pytest.raises(
        UsageError, match=r"none of the 2 files can be read; the first: one/a\.jpg: the image cannot be"
    ):
        prepare(tmp_path / "data")


def test_data_of_one_class_is_refused(colour_folder, prepare):
    for colour in ("green", "blue"):
        for path in (colour_folder / colour).iterdir():
            path.unlink()
    with pytest.raises(UsageError, match=r"at least two classes to tell apart, got \['red'\]"):
        prepare(colour_folder)


def test_run_that_was_prepared_is_not_prepared_again_unless_the_data_changes(colour_folder, prepare, monkeypatch):
    looks = []
    real = __import__("indexer.training.prepare", fromlist=["x"]).look_at_all
    monkeypatch.setattr("indexer.training.prepare.look_at_all", lambda *args: looks.append(1) or real(*args))
    prepare(colour_folder)
    prepare(colour_folder)
    assert len(looks) == 1
    (colour_folder / "red" / "0.png").unlink()
    prepare(colour_folder)
    assert len(looks) == 2


def test_run_goes_on_from_its_state(captions, prepare, train_here, tmp_path):
    options = {"num_epochs": 6, "batch_size": 10, "held_out_share": 0.25, "state_every_s": 0.0}
    prepared = prepare(captions, **options)
    folder = Path(prepared.job.folder)

    class StopError(Exception):
        pass

    def stop(report):
        if report.step == 8:
            raise StopError

    task = CaptionTask(folder, trainable_model(load_videobert("tiny_test")))
    from model.training_plan import describe_run

    run = describe_run(prepared.job.settings, {"kind": "captions", **prepared.job.facts})
    with pytest.raises(StopError):
        Trainer(task, prepared.job.settings, folder=folder, run=run, on_step=stop).fit()
    again = prepare(captions, **options)
    assert (prepared.goes_on, again.goes_on) == (False, True)
    assert train_here(again)["steps"] == 18
    assert [event.step for event in scalars(folder).Scalars("loss/contrastive")] == list(range(8, 19))
    train_here(prepare(captions, out="undisturbed.safetensors", **options))
    one, other = (load_file(tmp_path / f"{name}.safetensors") for name in ("out", "undisturbed"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_run_starts_anew_without_resume(captions, prepare):
    folder = Path(prepare(captions).job.folder)
    (folder / STATE_FILE).write_bytes(b"x")
    assert not prepare(captions, resume=False).goes_on


def test_features_that_are_no_numbers_end_training_by_name(captions, prepare, train_here):
    prepared = prepare(captions)
    path = Path(prepared.job.folder) / "features.npy"
    values = np.load(path)
    values[3] = math.nan
    np.save(path, values)
    with pytest.raises(TrainingError, match=r"'contrastive' must be a finite number, got nan at step .* row 4"):
        train_here(prepared)


@pytest.mark.parametrize(
    ("out", "text"), [("x.pt", "must end in .safetensors, got"), ("no/x.safetensors", "folder of --out does not exist")]
)
def test_out_that_cannot_be_written_is_refused_before_any_work(colour_folder, prepare, out, text):
    with pytest.raises(UsageError, match=text):
        prepare(colour_folder, out=out)


@pytest.fixture
def spoken_index(synthetic, run_index, tmp_path):
    """Twelve short videos, all but one with subtitles: whichever two are held out, one has a text."""
    for number in range(12):
        synthetic.write(f"v{number}.mp4", range(0, 4_000, 200), numbers=[number * 997 + i // 5 for i in range(20)])
        if number:
            text = f"1\n00:00:00,500 --> 00:00:03,000\nnumber {number} of many words here\n"
            (synthetic.folder / f"v{number}.srt").write_text(text)
    run_index(*sorted(synthetic.folder.glob("*.mp4")))
    return tmp_path / "index"


def test_pretraining_learns_from_an_index_and_writes_a_checkpoint(spoken_index, train_here, tmp_path):
    prepared = prepare_pretraining(
        str(spoken_index),
        str(tmp_path / "pre.safetensors"),
        model=None,
        settings=TrainingSettings(num_epochs=60, learning_rate=3e-3, batch_size=8),
        pretraining=PretrainingSettings(),
        held_out_share=0.2,
    )
    assert (prepared.items, prepared.held_out) == (10, 2)
    result = train_here(prepared)
    events = scalars(prepared.job.folder)
    losses = [event.value for event in events.Scalars("loss/masked_text")]
    assert sum(losses[-20:]) < sum(losses[:20])
    assert {"loss/masked_visual", "loss/alignment", "loss/contrastive"} <= set(events.Tags()["scalars"])
    assert {"masked_text", "masked_visual", "negative_loss"} <= set(result["metrics"])
    model = load_model(str(tmp_path / "pre.safetensors"))
    assert model.fingerprint != load_model("tiny_test").fingerprint


def test_pretraining_has_the_features_and_texts_of_the_index(spoken_index, tmp_path):
    prepared = prepare_pretraining(
        str(spoken_index),
        str(tmp_path / "pre.safetensors"),
        model=None,
        settings=TrainingSettings(),
        pretraining=PretrainingSettings(),
    )
    folder = Path(prepared.job.folder)
    snapshot = IndexStore.open(spoken_index).snapshot()
    rows = snapshot.read(range(snapshot.num_segments), ["frame_features", "frame_times_s", "transcript"]).to_pylist()
    features, items = FeatureSet(folder), Items.load(folder)
    for number, row in enumerate(rows):
        values = np.frombuffer(row["frame_features"], "<f2").reshape(-1, *snapshot.config.feature_shape)
        batch = features.batch([number])
        assert np.array_equal(batch.features[0].numpy(), values.astype(np.float32))
        assert batch.times_s[0].tolist() == pytest.approx(row["frame_times_s"])
        assert items.texts[number] == ([row["transcript"]] if row["transcript"] else [])
    assert Job.load(folder) == prepared.job


def test_work_says_when_the_run_folder_is_damaged(colour_folder, prepare):
    folder = Path(prepare(colour_folder).job.folder)
    (folder / "features.npy").unlink()
    with pytest.raises(FileNotFoundError):
        work(str(folder))
