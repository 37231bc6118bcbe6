"""What a commit has made is on the disk when it returns: log entries, files and folders, nothing left to the kernel."""

import os
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from indexer import schema
from indexer.errors import StorageError
from indexer.store.compact import compact
from indexer.store.delta import COMPARE_AND_SWAP, compare_and_swap, open_delta
from indexer.store.index import IndexStore

TABLES = ("videos", "segments")


def files_of(store: IndexStore) -> set[str]:
    return {str(path) for table in TABLES for path in (store.path / table).rglob("*") if path.is_file()}


@pytest.fixture
def flushed(monkeypatch) -> list[str]:
    """Paths that are flushed, as it happens."""
    paths: list[str] = []
    real = os.fsync

    def fsync(fd):
        paths.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr("os.fsync", fsync)
    return paths


CHANGES = {
    "new videos": lambda maker: maker.add("/v/d.mp4", batch_id="b2"),
    "known videos": lambda maker: maker.add("/v/a.mp4", batch_id="b2"),
    "removal": lambda maker: maker.remove("/v/a.mp4"),
    "compaction": lambda maker: compact(maker.store, older_than_hours=0),
    "files taken out": lambda maker: maker.store.segments.drop(maker.store.segments.files()[:1]),
    "settled": lambda maker: maker.store.ledger.settle(),
    "switch": lambda maker: maker.store.ledger.switch(
        maker.store.ledger.snapshot().videos, version=maker.store.ledger.version(), generation=1
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_all_that_a_commit_makes_is_flushed(maker, flushed, change):
    before = files_of(maker.store)

    CHANGES[change](maker)

    made = files_of(maker.store) - before
    folders = {str(Path(path).parent) for path in made}
    assert any("_delta_log" in folder for folder in folders)
    assert made | folders <= set(flushed)


def test_new_tables_are_flushed(make_store, flushed, tmp_path):
    maker = make_store()
    folders = {str(tmp_path / "index" / table) for table in TABLES}
    assert files_of(maker.store) | folders | {str(tmp_path / "index")} <= set(flushed)


def test_moments_are_flushed_before_their_videos_are_committed(maker, flushed):
    maker.add("/v/d.mp4", batch_id="b2")
    tables = [Path(path).parts[-3] for path in flushed if "_delta_log" in path and path.endswith(".json")]
    assert tables == ["segments", "videos"]


def test_checkpoint_is_flushed(maker, flushed):
    folder = maker.store.path / "videos"
    before = files_of(maker.store)

    def commit(table):
        rows = schema.without_meanings(schema.VIDEOS).empty_table()
        write_deltalake(table, rows, mode="append", commit_properties=COMPARE_AND_SWAP)
        open_delta(folder).create_checkpoint()  # as Delta does by itself now and then

    compare_and_swap(folder, commit, "no")

    made = files_of(maker.store) - before
    assert any(path.endswith("_last_checkpoint") for path in made)
    assert made <= set(flushed)


def test_disk_that_fails_to_flush_is_an_error(maker, row_of, monkeypatch):
    def fsync(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("os.fsync", fsync)
    rows = pa.Table.from_pylist([row_of("/v/d.mp4", num_segments=0)], schema=schema.VIDEOS)
    with pytest.raises(StorageError, match="cannot be flushed to the disk: Input/output error"):
        maker.store.ledger.commit(rows)
