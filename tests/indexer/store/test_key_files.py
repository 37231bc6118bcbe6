"""Which moments are visible, with and without key files, against a join of the two tables in plain Python."""

import itertools
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from indexer import schema
from indexer.errors import IndexFormatError
from indexer.store.compact import compact
from indexer.store.index import IndexStore
from indexer.store.key_files import list_key_files, open_key_file, write_key_file
from indexer.store.segment_keys import SegmentKeys, joined, read_keys
from indexer.store.verify import repair_vectors, verify


@pytest.fixture
def always(monkeypatch):
    """A key file is worth it for a single moment."""
    monkeypatch.setattr("indexer.store.key_files._MOST_FILES", 0)
    monkeypatch.setattr("indexer.store.key_files._MOST_MOMENTS", 0)


def joined_tables(store):
    """Oracle: {(segment_id, batch_id): (video, start_s, end_s)} of all rows that the ledger shows."""
    batch_of = {row["video_id"]: row["batch_id"] for row in store.ledger.snapshot().videos.to_pylist()}
    columns = ["segment_id", "video_id", "batch_id", "start_s", "end_s"]
    rows = [row for file in store.segments.files() for row in pq.read_table(file, columns=columns).to_pylist()]
    return {
        (row["segment_id"], row["batch_id"]): (row["video_id"], row["start_s"], row["end_s"])
        for row in rows
        if batch_of.get(row["video_id"]) == row["batch_id"]
    }


def seen(store):
    snapshot = store.snapshot()
    rows = snapshot.rows
    videos = snapshot.videos["video_id"].to_numpy()[rows.video_rows]
    stored = snapshot.read(np.arange(len(rows)), ["segment_id"])["segment_id"].to_pylist()
    assert stored == rows.segment_ids.tolist(), "each row is read from where it lies"
    by_file = [table["segment_id"].to_pylist() for _, table in snapshot.read_file_by_file(["segment_id"])]
    assert list(itertools.chain(*by_file)) == rows.segment_ids.tolist()
    found = rows.find(rows.segment_ids[::-1], rows.batch_ids.take(np.arange(len(rows))[::-1]))
    assert found.tolist() == list(range(len(rows)))[::-1]
    assert [rows.batch_of(row) for row in range(len(rows))] == rows.batch_ids.to_pylist()
    values = zip(videos.tolist(), rows.start_s.tolist(), rows.end_s.tolist(), strict=True)
    keys = zip(rows.segment_ids.tolist(), rows.batch_ids.to_pylist(), strict=True)
    return dict(zip(keys, values, strict=True))


def only_key_file(store):
    (path,) = list_key_files(store.keys_folder)
    return path


def spoil_segment_files(store):
    for file in store.segments.files():
        with open(file, "r+b") as stream:
            stream.truncate(50)


@pytest.mark.parametrize("seed", range(6))
def test_visible_moments_after_any_order_of_changes(make_store, always, seed):
    random = np.random.default_rng(seed)
    maker = make_store()
    kept_open = IndexStore.open(maker.store.path)
    for step in range(14):
        uris = [f"/v/{number}.mp4" for number in random.choice(8, size=random.integers(1, 4), replace=False)]
        action = random.choice(["add", "add", "add", "remove", "keys", "compact", "vectors"])
        if action == "add":
            maker.add(*uris, batch_id=f"b{random.integers(4)}-{step}")
        elif action == "remove":
            maker.remove(uris[0])
        elif action == "keys":
            maker.store.build_keys()
        elif action == "vectors":
            maker.store.build_vectors()
        else:
            compact(maker.store, older_than_hours=0)
        wanted = joined_tables(maker.store)
        for store in (maker.store, kept_open, IndexStore.open(maker.store.path)):
            assert list(seen(store)) == list(wanted), "in the order of the files, with a key file or without"
            assert seen(store) == wanted


def test_an_index_opens_without_reading_the_segment_files_that_a_key_file_names(maker, always):
    wanted = joined_tables(maker.store)
    assert maker.store.build_keys()
    assert not maker.store.build_keys(), "all is covered"
    spoil_segment_files(maker.store)
    rows = IndexStore.open(maker.store.path).snapshot().rows
    assert set(zip(rows.segment_ids.tolist(), rows.batch_ids.to_pylist(), strict=True)) == set(wanted)


def test_only_files_that_are_newer_than_the_key_file_are_read(maker, always):
    maker.store.build_keys()
    spoil_segment_files(maker.store)
    maker.add("/v/d.mp4", batch_id="b2")
    assert IndexStore.open(maker.store.path).snapshot().num_segments == 8


def test_a_replaced_and_a_removed_video_are_gone_at_once(maker, always):
    maker.store.build_keys()
    maker.remove("/v/b.mp4")
    maker.add("/v/a.mp4", batch_id="b7")
    store = IndexStore.open(maker.store.path)
    assert seen(store) == joined_tables(store)
    assert schema.segment_id("/v/b.mp4", 0.0) not in store.snapshot().rows.segment_ids
    assert {batch for _, batch in seen(store)} == {"b7", "b1"}


def test_a_small_index_has_no_key_file(maker):
    assert not maker.store.build_keys()
    assert not list(list_key_files(maker.store.keys_folder))


def test_many_small_files_get_a_key_file_and_compaction_another(make_store):
    maker = make_store()
    for number in range(17):
        maker.add(f"/v/{number}.mp4", batch_id=f"b{number}")
    assert maker.store.build_keys()
    before = only_key_file(maker.store)
    maker.add("/v/new.mp4", batch_id="new")
    assert not maker.store.build_keys(), "one file more is read as quickly as a key file is written"
    compact(maker.store)
    assert only_key_file(maker.store) == before
    assert seen(IndexStore.open(maker.store.path)) == joined_tables(maker.store)


def test_the_newest_two_are_kept(maker, always):
    for number in range(4):
        maker.add(f"/v/new{number}.mp4", batch_id=f"n{number}")
        assert maker.store.build_keys()
    paths = list(list_key_files(maker.store.keys_folder))
    assert len(paths) == 2
    assert open_key_file(paths[0], maker.store.segments.folder).files == maker.store.snapshot().rows.files


def test_an_index_may_be_moved(maker, always, tmp_path):
    maker.store.build_keys()
    wanted = joined_tables(maker.store)
    shutil.move(maker.store.path, tmp_path / "elsewhere")
    assert seen(IndexStore.open(tmp_path / "elsewhere")) == wanted


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_key_file_is_passed_over_named_and_rebuilt(maker, always, damage):
    maker.store.build_vectors()
    maker.store.build_keys()
    assert verify(maker.store) == []
    path = only_key_file(maker.store)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes({"flip": data, "cut": data[:-7], "empty": b""}[damage])
    store = IndexStore.open(maker.store.path)
    assert seen(store) == joined_tables(store)
    (problem,) = verify(store)
    assert path.name in problem
    assert "verify --repair" in problem
    assert repair_vectors(store)
    assert verify(IndexStore.open(maker.store.path)) == []
    assert only_key_file(store)


def test_a_key_file_that_tells_other_things_is_noticed(maker, always):
    maker.store.build_vectors()
    (keys,) = [joined(read_keys(maker.store.segments.files()))]
    false = SegmentKeys(**{**vars(keys), "start_s": keys.start_s + 1})
    write_key_file(maker.store.keys_folder, false, 3)
    store = IndexStore.open(maker.store.path)
    assert any("says other things" in problem for problem in verify(store))
    assert repair_vectors(store)
    assert verify(IndexStore.open(maker.store.path)) == []


def test_files_of_another_format_are_passed_over(maker, always):
    maker.store.build_keys()
    path = only_key_file(maker.store)
    path.rename(path.with_name(path.name.replace("k1-", "k2-")))
    assert not list(list_key_files(maker.store.keys_folder))
    assert seen(IndexStore.open(maker.store.path)) == joined_tables(maker.store)


def test_half_a_key_file_of_a_killed_run_is_swept(maker, always):
    maker.store.build_keys()
    path = only_key_file(maker.store)
    leftover = path.with_name(f".{path.name}.tmp")
    leftover.write_bytes(path.read_bytes()[:100])
    assert seen(IndexStore.open(maker.store.path)) == joined_tables(maker.store)
    compact(maker.store, older_than_hours=0)
    assert not leftover.exists()


def test_a_key_file_that_is_gone_is_an_error_of_the_format(maker, always):
    maker.store.build_keys()
    path = only_key_file(maker.store)
    path.unlink()
    with pytest.raises(IndexFormatError, match="cannot be read"):
        open_key_file(path, maker.store.segments.folder)


def test_keys_come_back_as_they_were_written(maker, always):
    maker.add("/v/d.mp4", "/v/a.mp4", batch_id="b2")
    files = maker.store.segments.files()
    keys = joined(read_keys(files))
    path = write_key_file(maker.store.keys_folder, keys, 1)
    back = open_key_file(path, maker.store.segments.folder)
    assert back.equals(keys)
    assert back.only(files[1:]).equals(joined(read_keys(files[1:])))
    assert not back.only(files[1:]).equals(joined(read_keys(files[:1])))
    assert len(back.only([])) == 0


def test_in_a_bucket_as_on_a_disk(bucket, maker, config, always):
    maker = type(maker)(IndexStore.open_or_create(bucket / "index", config))
    for number in range(3):
        maker.add(f"/v/{number}.mp4", batch_id=f"b{number}")
    assert maker.store.build_keys()
    maker.remove("/v/1.mp4")
    maker.add("/v/new.mp4", batch_id="new")
    store = IndexStore.open(bucket / "index")
    snapshot = store.snapshot()
    ids = [schema.segment_id(f"/v/{name}.mp4", start) for name in (0, 2, "new") for start in (0.0, 10.0)]
    assert sorted(snapshot.rows.segment_ids.tolist()) == sorted(ids)
    assert only_key_file(store).name.startswith("k1-")
