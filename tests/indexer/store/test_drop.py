"""Damaged segment files taken out: all of a video goes or nothing of it, and what is left is sound."""

import errno
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from indexer import schema
from indexer.errors import IndexDirectoryError, IndexFormatError
from indexer.store.compact import compact
from indexer.store.drop import Dropped, drop_damaged
from indexer.store.index import IndexStore
from indexer.store.key_files import write_key_file
from indexer.store.segment_keys import joined, read_keys
from indexer.store.segments_table import write_segment_file
from indexer.store.verify import repair_vectors, verify
from tests.indexer.store.conftest import segment_row


def flip(path: Path, data: bytes) -> None:
    """One bit in the middle of the embeddings."""
    footer = pq.ParquetFile(path).metadata
    (column,) = [
        c for c in map(footer.row_group(0).column, range(footer.num_columns)) if "embedding" in c.path_in_schema
    ]
    place = column.data_page_offset + column.total_compressed_size - 10
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])


DAMAGE = {
    "missing": lambda path, data: path.unlink(),
    "emptied": lambda path, data: path.write_bytes(b""),
    "cut short": lambda path, data: path.write_bytes(data[: len(data) // 2]),
    "flipped": flip,
    "longer": lambda path, data: path.write_bytes(data + data[-8:]),
}


def file_of(store: IndexStore, batch_id: str) -> Path:
    """The one segment file of a batch."""
    (file,) = [file for file in store.segments.files() if read_keys([file])[0].batches.to_pylist() == [batch_id]]
    return Path(file)


def damage(path: Path, kind: str) -> None:
    DAMAGE[kind](path, path.read_bytes())


def rows_of(store: IndexStore) -> list[dict]:
    snapshot = IndexStore.open(store.path).snapshot()
    rows = snapshot.read(range(snapshot.num_segments), schema.SEGMENTS.names).to_pylist()
    return sorted(rows, key=lambda row: row["segment_id"])


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("has_key_file", [False, True])
def test_damaged_file_goes_with_the_videos_that_were_in_it(maker, kind, has_key_file):
    store = maker.store
    store.build_vectors()
    if has_key_file:
        write_key_file(store.keys_folder, joined(read_keys(store.segments.files())), 1)
    kept = [row for row in rows_of(store) if row["batch_id"] == "b0"]
    path = file_of(store, "b1")
    damage(path, kind)
    (problem, *_) = verify(IndexStore.open(store.path))
    assert "videobert verify --repair" in problem

    assert drop_damaged(IndexStore.open(store.path)) == Dropped(files=[str(path)], videos=["/v/c.mp4"])

    assert rows_of(store) == kept
    repair_vectors(IndexStore.open(store.path))
    assert verify(IndexStore.open(store.path)) == []
    maker.add("/v/c.mp4", batch_id="b2")
    assert len(rows_of(store)) == 6
    assert verify(IndexStore.open(store.path)) == []


def test_all_of_a_video_goes_that_has_moments_in_other_files_too(maker, row_of):
    store, segments = maker.store, []
    for start_s in (0.0, 10.0):
        row = pa.Table.from_pylist([segment_row("/v/d.mp4", start_s, "b2", maker.unit())], schema=schema.SEGMENTS)
        segments.append(write_segment_file(store.segments.folder, row))
    store.commit(pa.Table.from_pylist([row_of("/v/d.mp4", batch_id="b2")], schema=schema.VIDEOS), segments)
    damage(store.segments.folder / segments[1].name, "cut short")

    dropped = drop_damaged(store)

    assert dropped is not None
    assert dropped.videos == ["/v/d.mp4"]
    assert {row["batch_id"] for row in rows_of(store)} == {"b0", "b1"}
    report = compact(IndexStore.open(store.path), older_than_hours=0)
    assert report.rows_dropped == 1
    assert not (store.segments.folder / segments[1].name).exists()


def test_video_that_has_been_replaced_since_stays(maker):
    old = file_of(maker.store, "b1")
    maker.add("/v/c.mp4", batch_id="b2")
    before = rows_of(maker.store)
    damage(old, "cut short")

    assert drop_damaged(maker.store) == Dropped(files=[str(old)], videos=[])

    assert rows_of(maker.store) == before


def test_video_whose_moments_were_never_committed_is_taken_out(maker):
    """A machine that lost power has lost the newest commit of the moments, and not that of the videos."""
    newest = max((maker.store.path / "segments" / "_delta_log").glob("*.json"))
    newest.unlink()
    assert any("videobert verify --repair" in line for line in verify(IndexStore.open(maker.store.path)))

    assert drop_damaged(IndexStore.open(maker.store.path)) == Dropped(files=[], videos=["/v/c.mp4"])

    maker.store.build_vectors()
    assert verify(IndexStore.open(maker.store.path)) == []


def test_nothing_is_written_where_nothing_is_damaged(maker):
    before = maker.store.state()
    assert drop_damaged(maker.store) is None
    assert maker.store.state() == before


def test_file_that_cannot_be_opened_now_is_not_taken_for_a_damaged_one(maker, monkeypatch):
    before, path = maker.store.state(), str(file_of(maker.store, "b1"))
    real = pq.ParquetFile

    def refuse(file, **options):
        if file == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(file, **options)

    monkeypatch.setattr("indexer.store.delta.pq.ParquetFile", refuse)
    with pytest.raises(IndexFormatError, match="Permission denied"):
        drop_damaged(maker.store)
    assert maker.store.state() == before


def test_nothing_is_taken_out_while_a_compaction_runs(maker):
    damage(file_of(maker.store, "b1"), "cut short")
    (maker.store.path / ".compact.lock").write_text('{"host": "elsewhere", "pid": 1}')
    before = maker.store.state()
    with pytest.raises(IndexDirectoryError, match="is being compacted or refreshed"):
        drop_damaged(maker.store)
    assert maker.store.state() == before
