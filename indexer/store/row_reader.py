"""Some rows of Parquet files, by row groups: footers, and what searches show, are read once as long as they fit.

Files of moments never change, so nothing that is kept here can be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.bounded_cache import BoundedCache
from indexer.store.delta import opened_parquet

# Footers of some hundred files of usual size; labels and transcripts of some ten thousand moments.
_FOOTER_BYTES = 16 << 20
_GROUP_BYTES = 16 << 20
# What a parsed footer takes for each column of each row group, about.
_BYTES_PER_CHUNK = 500

Group = tuple[str, int, tuple[str, ...]]


class RowReader:
    """Reads rows of the files of one snapshot. Any thread may ask."""

    def __init__(self) -> None:
        self._footers: BoundedCache[str, tuple[pq.FileMetaData, np.ndarray]] = BoundedCache(_FOOTER_BYTES)
        self._groups: BoundedCache[Group, pa.Table] = BoundedCache(_GROUP_BYTES)

    def read(self, file: str, rows: np.ndarray, columns: Sequence[str], *, keep: bool = False) -> pa.Table:
        """Columns of some rows of a file, in the order of `rows`; reads only the row groups that hold them.

        Args:
            file: path or URI.
            rows: int64 [R], numbers of rows in the file.
            columns: names.
            keep: whether the row groups may stay in memory: for small columns that are asked for again and again.

        Raises:
            IndexFormatError: the file is missing or damaged.
        """
        known = self._footers.get(file)
        if known is not None and keep:
            numbers, places = _places(known[1], rows)
            groups = [self._groups.get((file, number, tuple(columns))) for number in numbers.tolist()]
            if all(group is not None for group in groups):
                return pa.concat_tables(groups).take(places)
        with opened_parquet(file, None if known is None else known[0]) as parquet:
            ends = known[1] if known is not None else self._remember_footer(file, parquet.metadata)
            numbers, places = _places(ends, rows)
            if not keep:
                return _read(parquet, numbers.tolist(), columns).take(places)
            parts = [_read(parquet, [number], columns) for number in numbers.tolist()]
            for number, part in zip(numbers.tolist(), parts, strict=True):
                self._groups.put((file, number, tuple(columns)), part, part.nbytes)
            return pa.concat_tables(parts).take(places)

    def _remember_footer(self, file: str, footer: pq.FileMetaData) -> np.ndarray:
        """Where each row group ends, int64 [G]."""
        ends = np.cumsum([footer.row_group(number).num_rows for number in range(footer.num_row_groups)])
        self._footers.put(file, (footer, ends), _BYTES_PER_CHUNK * footer.num_row_groups * footer.num_columns)
        return ends


def _places(ends: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, pa.Array]:
    """The row groups that hold some rows, in rising order, and where each row stands in these put together."""
    groups = np.searchsorted(ends, rows, side="right")
    used = np.unique(groups)
    starts = np.concatenate([[0], ends[:-1]])
    offsets = np.concatenate([[0], np.cumsum(ends[used] - starts[used])])[:-1]
    return used, pa.array(offsets[np.searchsorted(used, groups)] + rows - starts[groups])


def _read(parquet: pq.ParquetFile, groups: list[int], columns: Sequence[str]) -> pa.Table:
    return parquet.read_row_groups(groups, columns=list(columns), use_threads=False).select(list(columns))
