"""Another model for an index. The oracle is an index made with that model from the videos."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from indexer import schema
from indexer.config import RunConfig, SamplingConfig
from indexer.errors import IndexDirectoryError, IndexNotFoundError, IndexSettingsError
from indexer.pipeline import index_videos
from indexer.query.video_index import VideoIndex
from indexer.refresh import refresh_index
from indexer.store.index import IndexStore
from indexer.store.sweep import maintenance_lock
from indexer.store.verify import verify
from model.checkpoint import save_checkpoint
from model.config import preset
from model.weights import pretrained_model

_FUSION = ("fusion.", "gate")


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint of `tiny_test` with another tower; or, if asked for, with other encoders."""

    def write(name="other.safetensors", gate=0.5, trained=_FUSION):
        if (tmp_path / name).exists():  # safetensors puts its metadata in any order, so another copy is another file
            return str(tmp_path / name)
        config = replace(preset("tiny_test"), trained=trained)
        model = pretrained_model(config, {})
        with torch.no_grad():
            model.gate.fill_(gate)
            for weight in model.frame_encoder.parameters():
                weight.mul_(1.1)
            for weight in model.text_encoder.parameters():
                weight.add_(0.1)
        save_checkpoint(model, config, {}, tmp_path / name)
        return str(tmp_path / name)

    return write


def index_with(model, videos, path):
    return index_videos([str(videos)], path, model=model, sampling=SamplingConfig(), run=RunConfig(), in_process=True)


def assert_same(rows, expected):
    assert len(rows) == len(expected) > 0
    for row, other in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row.pop("embedding"), other.pop("embedding"), atol=1e-6)
        for label, other_label in zip(row.pop("labels"), other.pop("labels"), strict=True):
            assert label["label"] == other_label["label"]
            assert label["score"] == pytest.approx(other_label["score"], abs=1e-6)
    assert rows == expected


def test_refresh_makes_the_index_that_the_model_would_have_made(
    tmp_path, copied_index, small_videos, rows_of, checkpoint
):
    before = rows_of()
    summary = refresh_index(tmp_path / "index", model=checkpoint())
    index_with(checkpoint(), small_videos, tmp_path / "fresh")
    assert (summary.videos, summary.segments) == (3, 4)
    assert not np.allclose(before[0]["embedding"], rows_of()[0]["embedding"], atol=1e-2)
    assert_same(rows_of(), rows_of("fresh"))


def test_refresh_leaves_a_sound_index_that_remembers_the_model(
    tmp_path, copied_index, small_videos, run_index, checkpoint
):
    refresh_index(tmp_path / "index", model=checkpoint())
    store = IndexStore.open(tmp_path / "index")
    assert store.config.model == checkpoint()
    assert verify(store) == []
    assert (store.snapshot().coverage.covered, store.snapshot().coverage.uncovered) == (4, 0)
    with pytest.raises(IndexSettingsError, match="another setting for the model"):
        run_index(small_videos)
    assert index_with(None, small_videos, tmp_path / "index").unchanged == 3


def test_refresh_changes_nothing_when_the_index_has_the_model(tmp_path, copied_index):
    version = IndexStore.open(tmp_path / "index").ledger.version()
    assert refresh_index(tmp_path / "index", model="tiny_test").segments == 4
    assert IndexStore.open(tmp_path / "index").ledger.version() == version


def test_refresh_goes_back(tmp_path, copied_index, small_videos, run_index, rows_of, checkpoint):
    before = rows_of()
    refresh_index(tmp_path / "index", model=checkpoint())
    refresh_index(tmp_path / "index", model="tiny_test")
    assert_same(rows_of(), before)
    assert run_index(small_videos).unchanged == 3


def test_refresh_refuses_a_model_whose_frame_features_are_others(tmp_path, copied_index, checkpoint):
    other = checkpoint("eyes.safetensors", trained=(*_FUSION, "frame_encoder."))
    with pytest.raises(IndexSettingsError, match="must have the frame encoder of the index"):
        refresh_index(tmp_path / "index", model=other)


def test_refresh_says_that_there_is_no_index(tmp_path):
    with pytest.raises(IndexNotFoundError, match="there is no index"):
        refresh_index(tmp_path / "nothing", model="tiny_test")


def test_refresh_refuses_while_another_process_looks_after_the_index(tmp_path, copied_index, checkpoint):
    with (
        maintenance_lock(tmp_path / "index"),
        pytest.raises(IndexDirectoryError, match="compacted or refreshed by another process"),
    ):
        refresh_index(tmp_path / "index", model=checkpoint())


def test_refresh_takes_along_what_is_indexed_removed_and_changed_meanwhile(
    tmp_path, videos, synthetic, run_index, rows_of, checkpoint
):
    (tmp_path / "later").mkdir()
    shutil.move(videos / "sub" / "c.avi", tmp_path / "later" / "c.avi")
    run_index(videos)
    did = []

    def meanwhile(done, total):
        if not did:
            did.append(True)
            (videos / "b.mkv").unlink()
            synthetic.write("videos/a.mp4", range(0, 5_000, 100))
            run_index(videos, tmp_path / "later", prune=True)

    refresh_index(tmp_path / "index", model=checkpoint(), on_progress=meanwhile)
    for source in (videos, tmp_path / "later"):
        index_with(checkpoint(), source, tmp_path / "fresh")
    assert [row["uri"].rsplit("/", 1)[1] for row in rows_of()] == ["c.avi", "a.mp4"]
    assert_same(rows_of(), rows_of("fresh"))


def test_refresh_that_dies_before_the_switch_leaves_the_index_as_it_was(tmp_path, copied_index, rows_of, checkpoint):
    before = rows_of()

    def die(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        refresh_index(tmp_path / "index", model=checkpoint(), on_progress=die)
    assert rows_of() == before
    assert verify(IndexStore.open(tmp_path / "index")) == []
    refresh_index(tmp_path / "index", model=checkpoint())
    assert IndexStore.open(tmp_path / "index").config.model == checkpoint()


def test_run_that_began_before_a_refresh_cannot_commit_after_it(tmp_path, copied_index, rows_of, checkpoint):
    old = IndexStore.open(tmp_path / "index")
    refresh_index(tmp_path / "index", model=checkpoint())
    expected = rows_of()
    with pytest.raises(IndexSettingsError, match="refreshed with another model meanwhile"):
        old.commit(old.snapshot().ledger.videos, [])
    assert rows_of() == expected


def test_open_index_moves_on_to_the_other_model_at_reload(tmp_path, copied_index, checkpoint):
    index = VideoIndex.open(tmp_path / "index")
    before, text_before = index.search("red", k=4), index.encode_texts(["red"])
    refresh_index(tmp_path / "index", model=checkpoint(trained=(*_FUSION, "text_encoder.")))
    assert [m.score for m in index.search("red", k=4).results] == [m.score for m in before.results]
    newest = index.newest()
    assert [m.score for m in index.search("red", k=4).results] == [m.score for m in before.results]
    assert index.reload()
    fresh = VideoIndex.open(tmp_path / "index")
    for moved_on in (newest, index):
        np.testing.assert_array_equal(moved_on.encode_texts(["red"]), fresh.encode_texts(["red"]))
        scores = [[m.score for m in each.search("red", k=4).results] for each in (moved_on, fresh)]
        assert scores[0] == scores[1] != [m.score for m in before.results]
    assert not np.allclose(fresh.encode_texts(["red"]), text_before, atol=1e-2)


def test_older_version_is_read_with_the_settings_it_was_made_with(tmp_path, copied_index, checkpoint):
    version = IndexStore.open(tmp_path / "index").ledger.version()
    refresh_index(tmp_path / "index", model=checkpoint())
    assert IndexStore.open(tmp_path / "index").snapshot(version).config.model == "tiny_test"


def test_refresh_command_prints_a_summary(tmp_path, copied_index, videobert, checkpoint):
    code, out, _ = videobert("refresh", tmp_path / "index", "--model", checkpoint(), "--json")
    assert code == 0
    assert json.loads(out)["segments"] == 4


def test_index_takes_videos_when_its_columns_were_described_in_other_words(tmp_path, videos, run_index, monkeypatch):
    run_index(videos / "a.mp4")
    described = pa.schema([field.with_metadata({"meaning": "other words"}) for field in schema.VIDEOS])
    monkeypatch.setattr(schema, "VIDEOS", described)
    assert run_index(videos).indexed == 2
    assert pq.read_schema(next((tmp_path / "index" / "videos").glob("*.parquet"))).names == schema.VIDEOS.names
