"""The visible moments of one ledger version: the one place where visibility is decided."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.store.segment_keys import SegmentKeys


class SegmentRows:
    """Which moments are visible, and where each one is stored; in the order of `keys`, file after file.

    Args:
        keys: of all committed moments.
        videos: the indexed ones, columns of `schema.VIDEOS`: a moment is visible if one has its `video_id` and
            `batch_id`.

    Attributes:
        files: paths of the segment files.
        segment_ids: int64 [N], one entry a visible moment.
        start_s, end_s: float64 [N].
        video_rows: int32 [N], the row of `videos` that the moment belongs to.
    """

    def __init__(self, keys: SegmentKeys, videos: pa.Table) -> None:
        self.files = keys.files
        self._file_starts, self._batches = keys.file_starts, keys.batches
        video_of_run = positions(videos["video_id"].to_numpy(), keys.run_videos)
        is_visible = video_of_run >= 0
        is_visible[is_visible] = _same_batch(keys, videos["batch_id"], video_of_run, is_visible)
        lengths = np.diff(keys.run_starts)
        self._run_batches, self._run_lengths = keys.run_batches[is_visible], lengths[is_visible]
        self.video_rows = np.repeat(video_of_run[is_visible].astype(np.int32), self._run_lengths)
        # Which of the stored moments these are: int32 or int64 [N] in rising order; None: all.
        self._stored = None if is_visible.all() else _narrow(np.flatnonzero(np.repeat(is_visible, lengths)))
        self.segment_ids, self.start_s, self.end_s = (
            column if self._stored is None else column[self._stored]
            for column in (keys.segment_ids, keys.start_s, keys.end_s)
        )

    def __len__(self) -> int:
        return len(self.segment_ids)

    @property
    def batch_ids(self) -> pa.DictionaryArray:
        """The batch of each row, strings [N] as a dictionary; made when asked for."""
        return pa.DictionaryArray.from_arrays(np.repeat(self._run_batches, self._run_lengths), self._batches)

    def batch_of(self, row: int) -> str:
        """The batch of one row."""
        run = np.searchsorted(np.cumsum(self._run_lengths), row, side="right")
        return self._batches[int(self._run_batches[run])].as_py()

    def located(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The file of each of some rows, as an index into `files`, and the row in it: int64 [R] both."""
        stored = rows if self._stored is None else self._stored[rows].astype(np.int64)
        numbers = np.searchsorted(self._file_starts, stored, side="right") - 1
        return numbers, stored - self._file_starts[numbers]

    def by_file(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Each file with visible moments: its index into `files`, their rows here, and the rows in it, both rising."""
        starts = self._file_starts if self._stored is None else np.searchsorted(self._stored, self._file_starts)
        for number in np.flatnonzero(np.diff(starts)).tolist():
            rows = np.arange(starts[number], starts[number + 1])
            stored = rows if self._stored is None else self._stored[rows].astype(np.int64)
            yield number, rows, stored - self._file_starts[number]

    def find(self, segment_ids: np.ndarray, batch_ids: pa.Array) -> np.ndarray:
        """Rows of moments by id and batch: int32 or int64, -1 where such a moment is not visible.

        Args:
            segment_ids: int64 [M].
            batch_ids: strings [M], better as a dictionary.
        """
        if np.array_equal(segment_ids, self.segment_ids):
            rows = np.arange(len(self))  # nothing has changed since they were written
        else:
            rows = positions(self.segment_ids, segment_ids)
        found = rows >= 0
        theirs = batch_ids if isinstance(batch_ids, pa.DictionaryArray) else batch_ids.dictionary_encode()
        codes = _index_in(theirs.dictionary.cast(pa.string()), self._batches)[theirs.indices.to_numpy()]
        ours = np.repeat(self._run_batches, self._run_lengths)
        rows[found] = np.where(ours[rows[found]] == codes[found], rows[found], -1)
        return _narrow(rows)

    @functools.cached_property
    def in_order(self) -> np.ndarray:
        """Rows int32 or int64 [N] by video, and within each by time."""
        return _narrow(np.lexsort((self.start_s, self.video_rows)))

    @functools.cached_property
    def places(self) -> np.ndarray:
        """Where each row stands in `in_order`, of the same type."""
        places = np.empty_like(self.in_order)
        places[self.in_order] = np.arange(len(self))
        return places


def _same_batch(
    keys: SegmentKeys, batch_of_video: pa.ChunkedArray, video_of_run: np.ndarray, is_known: np.ndarray
) -> np.ndarray:
    """Whether the ledger names the same batch, bool, for the runs whose video it knows."""
    ledger = batch_of_video.dictionary_encode().combine_chunks()
    codes = _index_in(keys.batches, ledger.dictionary)
    return codes[keys.run_batches[is_known]] == ledger.indices.to_numpy()[video_of_run[is_known]]


def _index_in(values: pa.Array, those: pa.Array) -> np.ndarray:
    """Where each value stands among others, -1 where it does not."""
    return pc.index_in(values, value_set=those).fill_null(-1).to_numpy()


def positions(haystack: np.ndarray, needles: np.ndarray) -> np.ndarray:
    """Position int64 of each needle in the haystack of unique numbers, -1 where it is not there.

    Looked up in rising order: that reads memory from front to back, which random needles do not.
    """
    if len(haystack) == 0:
        return np.full(len(needles), -1, dtype=np.int64)
    order, by_needle = np.argsort(haystack), np.argsort(needles)
    risen, wanted = haystack[order], needles[by_needle]
    places = np.minimum(np.searchsorted(risen, wanted), len(haystack) - 1)
    result = np.empty(len(needles), dtype=np.int64)
    result[by_needle] = np.where(risen[places] == wanted, order[places], -1)
    return result


def _narrow(numbers: np.ndarray) -> np.ndarray:
    """As int32 where they are few enough."""
    return numbers.astype(np.int32) if numbers.max(initial=0) < 2**31 else numbers
