"""The moments: a Delta table whose Parquet files the workers write and the driver only commits.

A file that was written but never committed is not part of the table; a row that was committed but is not in the ledger
is not visible. So a worker or driver may die at any point.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from indexer import schema
from indexer.errors import StorageError
from indexer.store.delta import data_files, delta_uri, open_delta

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


def write_segment_file(folder: Path, rows: pa.Table) -> SegmentFile:
    """Writes rows (columns of `schema.SEGMENTS`) under a new name; readers see it only once it is committed.

    Raises:
        StorageError: the file could not be written; nothing is left behind under a final name.
    """
    name = f"part-{uuid.uuid4().hex}.parquet"
    temporary = folder / f".{name}.tmp"
    try:
        pq.write_table(
            rows.cast(schema.SEGMENTS),
            temporary,
            compression="zstd",
            use_dictionary=_DICTIONARY,
            row_group_size=_ROWS_PER_GROUP,
        )
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        size = temporary.stat().st_size
        temporary.rename(folder / name)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
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


class SegmentsTable:
    """Commits and lists the files of `segments/`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @staticmethod
    def create(folder: Path) -> None:
        """Creates the empty table; does nothing where there is one already."""
        DeltaTable.create(delta_uri(folder), schema=schema.SEGMENTS, mode="ignore", name="segments")

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
        try:
            open_delta(self.folder).create_write_transaction(actions, mode="append", schema=schema.SEGMENTS)
        except (DeltaError, OSError) as error:
            raise StorageError(f"moments could not be committed: {' '.join(str(error).split())[:300]}") from error

    def files(self) -> list[str]:
        """Paths of the committed files, sorted by name."""
        return data_files(open_delta(self.folder), self.folder)
