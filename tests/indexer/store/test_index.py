import dataclasses
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import IndexFormatError, IndexNotFoundError, IndexSettingsError, StorageError
from indexer.store.index import IndexStore
from indexer.store.verify import verify


def test_open_gives_back_the_settings(maker, config):
    assert IndexStore.open(maker.store.path).config == config


def test_open_or_create_keeps_what_is_there(maker, config):
    assert IndexStore.open_or_create(maker.store.path, config).snapshot().num_segments == 6


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"model": "other", "model_fingerprint": "e" * 64}, "another setting for the model"),
        ({"model_fingerprint": "e" * 64}, "weights"),
        ({"sampling": SamplingConfig(frame_rate_hz=2.0)}, "frame rate"),
        ({"sampling": SamplingConfig(segment_length_s=5.0)}, "segment length"),
        ({"sampling": SamplingConfig(mode="keyframes")}, "the sampling"),
        ({"feature_shape": (2, 4)}, "other settings"),
    ],
)
def test_other_settings_are_refused(maker, config, change, text):
    with pytest.raises(IndexSettingsError, match=text):
        IndexStore.open_or_create(maker.store.path, dataclasses.replace(config, **change))


def test_the_same_model_in_another_place_is_taken_from_there(maker, config):
    moved = dataclasses.replace(config, model="clip:/another/place")
    assert IndexStore.open_or_create(maker.store.path, moved).config == moved
    assert IndexStore.open(maker.store.path).config == config


def test_no_index_is_reported(tmp_path):
    with pytest.raises(IndexNotFoundError, match="videobert index"):
        IndexStore.open(tmp_path / "nothing")
    (tmp_path / "file").touch()
    with pytest.raises(IndexNotFoundError):
        IndexStore.open(tmp_path / "file")


@pytest.mark.parametrize("text", ["{", "[]", '{"format_version": 99}', '{"format_version": 1}'])
def test_settings_of_another_format_are_refused(tmp_path, text):
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(IndexFormatError):
        IndexStore.open(tmp_path)


def test_a_folder_with_other_files_is_not_taken_over(tmp_path, config):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(StorageError, match="holds other files"):
        IndexStore.open_or_create(tmp_path, config)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.mp4"]


def test_a_path_below_a_file_cannot_be_an_index(tmp_path, config):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "index"):
        with pytest.raises(StorageError):
            IndexStore.open_or_create(path, config)


def test_a_creation_that_was_cut_short_is_finished_by_the_next(maker, config):
    (maker.store.path / "index.json").unlink()
    assert IndexStore.open_or_create(maker.store.path, config).snapshot().num_segments == 6


@pytest.mark.parametrize("name", ["with blank and é", "100%", "a+b&c"])
def test_any_folder_name_will_do(make_store, name):
    maker = make_store(name)
    maker.add("/v/a.mp4")
    maker.store.build_vectors()
    assert maker.store.snapshot().num_segments == 2
    assert verify(IndexStore.open(maker.store.path)) == []


def test_a_percent_code_in_the_path_is_refused(tmp_path, config):
    with pytest.raises(StorageError, match="percent code"):
        IndexStore.open_or_create(tmp_path / "a%41", config)
    assert not list(tmp_path.iterdir())


def test_verify_finds_nothing_in_a_sound_index(maker):
    maker.store.build_vectors()
    assert verify(maker.store) == []


def test_verify_finds_a_missing_and_a_cut_file(maker):
    maker.store.build_vectors()
    missing, cut = maker.store.segments.files()
    with open(cut, "r+b") as stream:
        stream.truncate(50)
    assert any("bytes, the log says" in line or "cannot be read" in line for line in verify(maker.store))
    (maker.store.path / "segments" / missing.rsplit("/", 1)[-1]).unlink()
    assert verify(maker.store)


def test_verify_finds_moments_that_the_ledger_does_not_know_of(maker, row_of):
    maker.store.build_vectors()
    maker.store.ledger.commit(pa.Table.from_pylist([row_of("/v/a.mp4", num_segments=5)], schema=schema.VIDEOS))
    assert any("the ledger says 5" in line for line in verify(maker.store))


def test_verify_finds_damaged_and_foreign_vectors(maker):
    manifest = maker.store.build_vectors()
    path = maker.store.vectors_folder / f"{manifest.name}.json"
    values = json.loads(path.read_text())
    values["sha256"][".faiss"] = "0" * 64
    path.write_text(json.dumps(values))
    assert any("damaged" in line for line in verify(maker.store))


def rows_of(store):
    snapshot = IndexStore.open(store.path).snapshot()
    rows = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
    return sorted(rows, key=lambda row: row["segment_id"])


def test_flipped_bits_in_moments_are_noticed_or_change_nothing(maker):
    """Vectors and pictures do not compress: without checksums a flipped bit would be just another value."""
    maker.store.build_vectors()
    before = rows_of(maker.store)
    file = Path(maker.store.segments.files()[0])
    data = file.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    drawn, noticed = random.Random(1), 0
    for _ in range(60):
        damaged = bytearray(data)
        damaged[drawn.randrange(4, footer)] ^= 1 << drawn.randrange(8)
        file.write_bytes(damaged)
        problems = verify(IndexStore.open(maker.store.path))
        noticed += bool(problems)
        assert all("\n" not in line for line in problems)
        if problems:
            with pytest.raises(IndexFormatError, match="cannot be read"):
                rows_of(maker.store)
        else:
            assert rows_of(maker.store) == before, "a part of a page's header that nothing depends on"
    assert noticed > 20


def test_damaged_log_entry_is_one_line_that_says_what_to_do(maker):
    newest = max((maker.store.path / "segments" / "_delta_log").glob("*.json"))
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(IndexFormatError, match=r"cannot be read: .*; restore it from a backup") as caught:
        IndexStore.open(maker.store.path).snapshot()
    assert "unknown" not in str(caught.value)
    assert verify(IndexStore.open(maker.store.path)) == [str(caught.value)]


@pytest.mark.parametrize("table", ["videos", "segments"])
def test_empty_log_entry_is_no_commit_of_nothing(maker, table):
    """A machine that loses power may leave one; Delta would show the index without that commit."""
    log = maker.store.path / table / "_delta_log"
    newest = max(log.glob("*.json"))
    entry = newest.read_bytes()
    newest.write_bytes(b"")
    with pytest.raises(IndexFormatError, match=f"{newest.name}' is empty, .*: delete it"):
        IndexStore.open(maker.store.path).snapshot()
    newest.with_name("00000000000000000003.json").write_bytes(entry)
    with pytest.raises(IndexFormatError, match="delete it and all of a higher number"):
        IndexStore.open(maker.store.path).snapshot()


def test_verify_finds_a_video_that_is_there_twice_and_one_under_a_foreign_id(maker, row_of):
    twice = pa.Table.from_pylist([row_of("/v/d.mp4", num_segments=0)] * 2, schema=schema.VIDEOS)
    maker.store.ledger.commit(twice)
    assert any("'/v/d.mp4' more than once: take it out" in line for line in verify(maker.store))
    maker.remove("/v/d.mp4")
    foreign = row_of("/v/d.mp4", num_segments=0, video_id=schema.video_id("/v/e.mp4"))
    maker.store.ledger.commit(pa.Table.from_pylist([foreign], schema=schema.VIDEOS))
    assert any("'/v/d.mp4' does not belong to its id" in line for line in verify(maker.store))
