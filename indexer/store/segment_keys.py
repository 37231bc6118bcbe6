"""The columns of segment files that decide which moments are visible, and say when they are: a few bytes a moment.

Moments of one video follow each other in a file, so video and batch are kept once for each run of moments that share
them, and the batch's name once for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer import schema
from indexer.store.delta import in_parallel, read_parquet_files

_COLUMNS = ["segment_id", "video_id", "batch_id", "start_s", "end_s"]
# An object for each file costs some kB, most of them more than the keys in it.
_FILES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentKeys:
    """The keys of M stored moments, file after file; whether they are visible, the ledger decides.

    Attributes:
        files: paths of the F segment files.
        file_starts: int64 [F + 1], where the moments of each file begin, and M.
        segment_ids: int64 [M]; may be mapped from a file, as the next two.
        start_s, end_s: float64 [M], seconds.
        run_starts: int64 [R + 1], where each run of moments of one video and batch begins, and M; none crosses files.
        run_videos: int64 [R], `video_id`.
        run_batches: int32 [R], index into `batches`.
        batches: string [B], each once.
    """

    files: list[str]
    file_starts: np.ndarray
    segment_ids: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray
    run_starts: np.ndarray
    run_videos: np.ndarray
    run_batches: np.ndarray
    batches: pa.Array

    def __len__(self) -> int:
        return len(self.segment_ids)

    def equals(self, other: SegmentKeys) -> bool:
        """Whether both say the same of the same files in the same order."""
        ours, theirs = (keys.batches.take(pa.array(keys.run_batches)) for keys in (self, other))
        names = ("file_starts", "segment_ids", "start_s", "end_s", "run_starts", "run_videos")
        same = all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)
        return same and self.files == other.files and ours.equals(theirs)

    def only(self, files: Collection[str]) -> SegmentKeys:
        """The keys of those of its files that are named."""
        return in_order([(self, number) for number, file in enumerate(self.files) if file in files])

    def _between(self, number: int, beyond: int) -> SegmentKeys:
        """Those of some files that follow each other, nothing copied."""
        if beyond - number == len(self.files):
            return self
        start, end = self.file_starts[[number, beyond]]
        first, last = np.searchsorted(self.run_starts, [start, end])
        return SegmentKeys(
            files=self.files[number:beyond],
            file_starts=self.file_starts[number : beyond + 1] - start,
            segment_ids=self.segment_ids[start:end],
            start_s=self.start_s[start:end],
            end_s=self.end_s[start:end],
            run_starts=self.run_starts[first : last + 1] - start,
            run_videos=self.run_videos[first:last],
            run_batches=self.run_batches[first:last],
            batches=self.batches,
        )


def read_keys(files: Sequence[str]) -> list[SegmentKeys]:
    """The keys of some segment files in their order, one object for some hundred; several are read at once.

    Raises:
        IndexFormatError: a file is missing or damaged.
    """
    starts = range(0, len(files), _FILES_AT_ONCE)
    return [joined(in_parallel(_read, files[start : start + _FILES_AT_ONCE])) for start in starts]


def _read(file: str) -> SegmentKeys:
    table = read_parquet_files([file], schema.SEGMENTS, _COLUMNS).combine_chunks()
    videos = table["video_id"].to_numpy()
    batches = table["batch_id"].combine_chunks().dictionary_encode()
    codes = batches.indices.to_numpy()
    is_first = np.ones(len(videos), dtype=bool)
    is_first[1:] = (np.diff(videos) != 0) | (np.diff(codes) != 0)
    starts = np.flatnonzero(is_first)
    return SegmentKeys(
        files=[file],
        file_starts=np.array([0, len(videos)]),
        segment_ids=table["segment_id"].to_numpy().copy(),  # Arrow's own would keep all columns of the file in memory
        start_s=table["start_s"].to_numpy().copy(),
        end_s=table["end_s"].to_numpy().copy(),
        run_starts=np.append(starts, len(videos)),
        run_videos=videos[starts],
        run_batches=codes[starts],
        batches=batches.dictionary,
    )


def in_order(files: Iterable[tuple[SegmentKeys, int]]) -> SegmentKeys:
    """Some files of several, each given as whose it is and its number there, in that order."""
    parts: list[tuple[SegmentKeys, int, int]] = []
    for keys, number in files:
        if parts and parts[-1][0] is keys and parts[-1][2] == number:
            parts[-1] = (keys, parts[-1][1], number + 1)
        else:
            parts.append((keys, number, number + 1))
    return joined(keys._between(number, beyond) for keys, number, beyond in parts)


def sorted_by_file(parts: Iterable[SegmentKeys]) -> SegmentKeys:
    """Several as one, in the order of their files' names; copied only where that asks for it."""
    files = [(file, keys, number) for keys in parts for number, file in enumerate(keys.files)]
    return in_order((keys, number) for _, keys, number in sorted(files, key=_name))


def _name(file: tuple[str, SegmentKeys, int]) -> str:
    return file[0]


def joined(parts: Iterable[SegmentKeys]) -> SegmentKeys:
    """Several as one, in their order."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    file_counts = [np.diff(part.file_starts) for part in parts]
    run_counts = [np.diff(part.run_starts) for part in parts]
    batches = pc.unique(pa.chunked_array([part.batches for part in parts], pa.string()))
    # The dictionary of a file is often that of the file before.
    codes = {id(part.batches): pc.index_in(part.batches, value_set=batches).to_numpy() for part in parts}
    return SegmentKeys(
        files=[file for part in parts for file in part.files],
        file_starts=_starts(file_counts),
        segment_ids=_concatenated([part.segment_ids for part in parts], np.int64),
        start_s=_concatenated([part.start_s for part in parts], np.float64),
        end_s=_concatenated([part.end_s for part in parts], np.float64),
        run_starts=_starts(run_counts),
        run_videos=_concatenated([part.run_videos for part in parts], np.int64),
        run_batches=_concatenated([codes[id(part.batches)][part.run_batches] for part in parts], np.int32),
        batches=batches,
    )


def _concatenated(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays], dtype=dtype)


def _starts(counts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(_concatenated(counts, np.int64))])
