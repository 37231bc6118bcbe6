"""The moments: a Delta table whose Parquet files the workers write and the driver only commits.

A file that was written but never committed is not part of the table; a row that was committed but is not in the ledger
is not visible. So a worker or driver may die at any point.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from indexer import schema
from indexer.errors import StorageError
from indexer.storage import Location, location, new_file
from indexer.storage.s3 import persistently
from indexer.store.delta import (
    COMPARE_AND_SWAP,
    MAX_ATTEMPTS,
    compare_and_swap,
    create_delta,
    data_files,
    detail_of,
    open_delta,
)
from indexer.store.flush import flush_commits

# Small row groups: showing one moment reads one group, about 2 MB at the default settings.
_ROWS_PER_GROUP = 128
# Columns whose minimum and maximum go to the log, for file skipping by outside readers.
_STATISTICS = ("segment_id", "video_id", "start_s", "end_s")
# Numbers and JPEGs do not repeat; a dictionary would only cost time.
_DICTIONARY = ["batch_id", "labels.list.element.label", "transcript"]


@dataclass(frozen=True, kw_only=True)
class SegmentFile:
    """A Parquet file in `segments/` that is not committed yet.

    Attributes:
        name: file name inside the folder.
        size_bytes: size on storage.
        num_rows: rows in it.
        statistics: Delta's JSON statistics.
    """

    name: str
    size_bytes: int
    num_rows: int
    statistics: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def write_segment_file(folder: Location, rows: pa.Table) -> SegmentFile:
    """Writes rows (columns of `schema.SEGMENTS`) under a new name; readers see it only once it is committed.

    Raises:
        StorageError: the file could not be written; nothing is left behind under a final name.
    """
    name = f"part-{uuid.uuid4().hex}.parquet"
    try:
        with new_file(folder / name) as path:
            pq.write_table(
                rows.cast(schema.SEGMENTS),
                path,
                compression="zstd",
                use_dictionary=_DICTIONARY,
                row_group_size=_ROWS_PER_GROUP,
                write_page_checksum=True,
            )
            size = path.stat().st_size
    except OSError as error:
        raise StorageError(f"moments could not be written to {str(folder)!r}: {error.strerror or error}") from error
    return SegmentFile(name=name, size_bytes=size, num_rows=rows.num_rows, statistics=_statistics(rows))


def _statistics(rows: pa.Table) -> str:
    ranges = {name: pc.min_max(rows[name]).as_py() for name in _STATISTICS}
    return json.dumps(
        {
            "numRecords": rows.num_rows,
            "minValues": {name: value["min"] for name, value in ranges.items()},
            "maxValues": {name: value["max"] for name, value in ranges.items()},
            "nullCount": {name: rows[name].null_count for name in _STATISTICS},
        }
    )


def embeddings_in(table: pa.Table, dim: int) -> np.ndarray:
    """The column `embedding` as float32 [N, dim]."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, dim)


class SegmentsTable:
    """Commits and lists the files of `segments/`."""

    def __init__(self, folder: Location) -> None:
        self.folder = folder

    @staticmethod
    def create(folder: Location) -> None:
        """Creates the empty table; does nothing where there is one already."""
        create_delta(folder, schema.SEGMENTS, "segments")

    def add(self, files: Sequence[SegmentFile]) -> None:
        """Commits files that workers wrote. Appends never conflict, so concurrent runs may do this at once.

        Raises:
            StorageError: the log could not be written.
        """
        if not files:
            return
        now_ms = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(file.name, file.size_bytes, {}, now_ms, True, file.statistics) for file in files
        ]

        def commit() -> int:
            table = open_delta(self.folder)
            version = table.version()
            table.create_write_transaction(actions, mode="append", schema=schema.SEGMENTS)
            return version

        try:
            version = persistently(commit)  # a file that is added twice is there once
        except (DeltaError, OSError) as error:
            raise StorageError(f"moments could not be committed: {detail_of(error, self.folder)}") from error
        flush_commits(self.folder, after=version)

    def drop(self, files: Collection[str]) -> None:
        """Takes files out of the table in one commit; what is not in it is passed over.

        Raises:
            StorageError: the storage refused, or other writers won every race for too long.
        """

        def commit(table: DeltaTable) -> None:
            there = self._sizes(table)
            now_ms = int(time.time() * 1000)
            actions: list[AddAction | RemoveAction] = [
                RemoveAction(location(file).name, True, now_ms, there[file], {}) for file in files if file in there
            ]
            if actions:
                table.create_write_transaction(
                    actions, mode="append", schema=schema.SEGMENTS, commit_properties=COMPARE_AND_SWAP
                )

        if compare_and_swap(self.folder, commit, "files could not be taken out of the moments") is None:
            raise StorageError(
                f"files could not be taken out of the moments in {MAX_ATTEMPTS} attempts: "
                "other runs keep writing to this index; run again later"
            )

    def files(self) -> list[str]:
        """Paths of the committed files, sorted by name."""
        return data_files(open_delta(self.folder), self.folder)

    def sizes(self) -> dict[str, int]:
        """The same, with the bytes that each had when it was written."""
        return self._sizes(open_delta(self.folder))

    def _sizes(self, table: DeltaTable) -> dict[str, int]:
        actions = pa.table(table.get_add_actions(flatten=True)).select(["path", "size_bytes"]).to_pylist()
        return {str(self.folder / action["path"]): action["size_bytes"] for action in actions}
