"""Compaction: many small files become few, and rows that the ledger does not show are dropped.

Whatever is younger than a safety interval is never dropped or deleted: a run may be about to commit it, a reader may
have it open. The moments are replaced in one atomic commit, made only on the version that was read (compare and swap),
so a batch committed meanwhile is never lost. Embeddings are copied bit by bit; vector files stay valid.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.transaction import AddAction, RemoveAction

from indexer import schema
from indexer.errors import IndexDirectoryError, StorageError, UsageError
from indexer.storage import Location
from indexer.store.delta import (
    COMPARE_AND_SWAP,
    MAX_ATTEMPTS,
    compare_and_swap,
    data_files,
    open_delta,
    read_parquet_files,
)
from indexer.store.index import IndexStore
from indexer.store.segment_keys import joined, read_keys
from indexer.store.segment_rows import SegmentRows
from indexer.store.segments_table import SegmentFile, write_segment_file
from indexer.store.sweep import delete_unneeded, maintenance_lock

SAFETY_HOURS = 24
# Files of this size are read at full speed from disks and object storage, and fit into memory one at a time.
TARGET_BYTES = 64 << 20
TARGET_ROWS = 50_000


@dataclass(frozen=True, kw_only=True)
class CompactReport:
    """What a compaction did; the contract of `compact --json`.

    Attributes:
        files_before, files_after: segment files in the table.
        rows_dropped: rows that the ledger does not show.
        files_deleted: files of tables and vectors deleted from storage, leftovers of crashes included.
        bytes_freed: their size.
    """

    files_before: int
    files_after: int
    rows_dropped: int
    files_deleted: int
    bytes_freed: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _CommittedFile:
    """A file of the table, and which of its rows are kept: int64, in order."""

    name: str
    size_bytes: int
    num_rows: int
    modified_ms: int
    kept: np.ndarray

    @property
    def num_dropped(self) -> int:
        return self.num_rows - len(self.kept)


@dataclass(frozen=True, kw_only=True)
class _Merger:
    """Some files of the table and the new file, if any row is kept, that takes their place."""

    old: list[_CommittedFile]
    new: SegmentFile | None


def compact(
    store: IndexStore,
    *,
    older_than_hours: int = SAFETY_HOURS,
    target_bytes: int = TARGET_BYTES,
    target_rows: int = TARGET_ROWS,
) -> CompactReport:
    """Merges small files, drops rows that the ledger does not show, and deletes what nobody can still need.

    Args:
        store: the index. It may be searched and added to meanwhile.
        older_than_hours: only what is older than this is dropped or deleted. 0: only while nobody uses it.
        target_bytes, target_rows: a merged file has at most about so much.

    Raises:
        UsageError: the number of hours is negative.
        IndexDirectoryError: the index is being compacted by another process.
        IndexFormatError: a file is missing or damaged; nothing was changed.
        StorageError: a file or the log could not be written.
    """
    if older_than_hours < 0:
        raise UsageError(f"the hours must be at least 0, got {older_than_hours!r}")
    with maintenance_lock(store.path):
        files = list(_committed_files(store, time.time() - older_than_hours * 3600))
        mergers = _merge_all(store.segments.folder, _groups(files, target_bytes, target_rows))
        _commit(store.segments.folder, mergers)
        _merge_ledger_files(store.path / "videos")
        deleted = delete_unneeded(store, older_than_hours)
        store.build_vectors()
        store.build_keywords()
        store.build_keys()
        return CompactReport(
            files_before=len(files),
            files_after=len(store.segments.files()),
            rows_dropped=sum(file.num_dropped for merger in mergers for file in merger.old),
            files_deleted=len(deleted),
            bytes_freed=sum(deleted.values()),
        )


def _committed_files(store: IndexStore, cutoff_s: float) -> Iterator[_CommittedFile]:
    """The table's files, oldest first. Of those younger than `cutoff_s` (seconds since 1970) every row is kept.

    The files are listed before the ledger is read: a file that a later ledger version shows is then a young one.
    """
    folder = store.segments.folder
    actions = pa.table(open_delta(folder).get_add_actions(flatten=True))
    listed = actions.sort_by([("modification_time", "ascending"), ("path", "ascending")]).to_pylist()
    keys = joined(read_keys([str(folder / action["path"]) for action in listed]))
    visible = {number: rows for number, _, rows in SegmentRows(keys, store.ledger.snapshot().indexed).by_file()}
    for number, (action, num_rows) in enumerate(zip(listed, np.diff(keys.file_starts).tolist(), strict=True)):
        kept = np.arange(num_rows)
        if action["modification_time"] <= cutoff_s * 1000:
            kept = visible.get(number, kept[:0])
        yield _CommittedFile(
            name=action["path"],
            size_bytes=action["size_bytes"],
            num_rows=num_rows,
            modified_ms=action["modification_time"],
            kept=kept,
        )


def _groups(files: Sequence[_CommittedFile], target_bytes: int, target_rows: int) -> Iterator[list[_CommittedFile]]:
    """Which files become one: small ones and those with rows to drop, next to each other in time."""
    group: list[_CommittedFile] = []
    num_bytes = num_rows = 0
    for file in files:
        kept_bytes = file.size_bytes * len(file.kept) // max(1, file.num_rows)
        is_small = file.size_bytes < target_bytes // 2 and file.num_rows < target_rows // 2
        if not is_small and not file.num_dropped:
            continue
        if group and (num_bytes + kept_bytes > target_bytes or num_rows + len(file.kept) > target_rows):
            yield from _worth_it(group)
            group, num_bytes, num_rows = [], 0, 0
        group.append(file)
        num_bytes += kept_bytes
        num_rows += len(file.kept)
    yield from _worth_it(group)


def _worth_it(group: list[_CommittedFile]) -> Iterator[list[_CommittedFile]]:
    if len(group) > 1 or any(file.num_dropped for file in group):
        yield group


def _merge_all(folder: Location, groups: Iterable[list[_CommittedFile]]) -> list[_Merger]:
    """Writes all new files, or none: a full disk is left as it was."""
    mergers: list[_Merger] = []
    try:
        for group in groups:
            mergers.append(_merge(folder, group))
    except BaseException:
        for merger in mergers:
            if merger.new:
                (folder / merger.new.name).unlink(missing_ok=True)
        raise
    return mergers


def _merge(folder: Location, group: list[_CommittedFile]) -> _Merger:
    """Writes the new file; it is not part of the table yet."""
    tables = []
    for file in group:
        rows = read_parquet_files([str(folder / file.name)], schema.SEGMENTS)
        tables.append(rows.take(pa.array(file.kept)) if file.num_dropped else rows)
    rows = pa.concat_tables(tables)
    return _Merger(old=group, new=write_segment_file(folder, rows) if rows.num_rows else None)


def _commit(folder: Location, mergers: Sequence[_Merger]) -> None:
    """Puts the new files in the place of the old ones in one commit. The loser of a race reads again and retries."""
    if not mergers:
        return
    old = {file.name for merger in mergers for file in merger.old}
    actions = [action for merger in mergers for action in _actions(merger)]

    def commit(table: DeltaTable) -> None:
        if not old <= {Path(path).name for path in data_files(table, folder)}:
            raise IndexDirectoryError("another process has compacted this index meanwhile; nothing was changed")
        table.create_write_transaction(
            actions, mode="append", schema=schema.SEGMENTS, commit_properties=COMPARE_AND_SWAP
        )

    if compare_and_swap(folder, commit, "merged files could not be committed") is None:
        raise StorageError(
            f"merged files could not be committed in {MAX_ATTEMPTS} attempts: "
            "other runs keep writing to this index; run again later"
        )


def _actions(merger: _Merger) -> Iterator[AddAction | RemoveAction]:
    """A merged file counts as written when the youngest of its parts was, so that rows cannot stay young for ever."""
    data_change = any(file.num_dropped for file in merger.old)
    for file in merger.old:
        yield RemoveAction(file.name, data_change, int(time.time() * 1000), file.size_bytes, {})
    if merger.new:
        modified_ms = max(file.modified_ms for file in merger.old)
        yield AddAction(merger.new.name, merger.new.size_bytes, {}, modified_ms, data_change, merger.new.statistics)


def _merge_ledger_files(folder: Location) -> None:
    """Each commit adds a file to the ledger; a busy index merges them another time."""

    def merge(table: DeltaTable) -> None:
        if len(data_files(table, folder)) >= 2:
            table.optimize.compact(commit_properties=COMPARE_AND_SWAP)

    compare_and_swap(folder, merge, "the ledger could not be merged")
