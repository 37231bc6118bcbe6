"""The codes of a large vector file made by many tasks, each a part, and merged: bit by bit what one process makes.

The lists are learnt once and written beside the file to be; each task reads them and its moments from storage, and
writes its codes there. So nothing but small plain data passes between processes, on a shared folder or in a bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.errors import StorageError
from indexer.storage import Location, location, write_whole
from indexer.store.inverted_file import ROWS_AT_ONCE, InvertedFile
from indexer.store.row_reader import RowReader
from indexer.store.segment_rows import SegmentRows
from indexer.store.segments_table import embeddings_in

# Half a million moments: 36 MB of codes, and on one core under two minutes.
_ROWS_PER_SHARD = 64 * ROWS_AT_ONCE


@dataclass(frozen=True, kw_only=True)
class VectorShard:
    """What one task codes.

    Attributes:
        lists: the trained, empty inverted file, an address that every task can read.
        out: where its codes go.
        dim: length of a vector.
        first_row: row of the vector file that its first moment is.
        moments: segment files, and int64, rows in each.
    """

    lists: str
    out: str
    dim: int
    first_row: int
    moments: list[tuple[str, np.ndarray]]


# As the built-in `map`: results in the order of the shards.
MapShards = Callable[[Callable[[VectorShard], str], Sequence[VectorShard]], Iterable[str]]


def code_shard(shard: VectorShard) -> str:
    """Codes the moments of a shard, and writes them. Whole or not at all; done again, it writes the same.

    Returns:
        SHA-256 of what was written.

    Raises:
        IndexFormatError: a segment file is missing or damaged.
        StorageError: the codes could not be written, or the lists not be read.
    """
    try:
        inverted = InvertedFile.from_bytes(location(shard.lists).read_bytes())
        for first_row, vectors in _blocks(shard):
            inverted.add(vectors, first_row)
        data = bytes(inverted.to_bytes())
        write_whole(location(shard.out), data)
    except OSError as error:
        raise StorageError(f"codes of vectors could not be written to {shard.out!r}: {error.strerror}") from error
    return hashlib.sha256(data).hexdigest()


def _blocks(shard: VectorShard) -> Iterator[tuple[int, np.ndarray]]:
    """Vectors as one process would code them: always as many at once, however they lie in files."""
    reader = RowReader()
    first_row, waiting = shard.first_row, np.empty((0, shard.dim), np.float32)
    for file, rows in shard.moments:
        waiting = np.concatenate([waiting, embeddings_in(reader.read(file, rows, ["embedding"]), shard.dim)])
        while len(waiting) >= ROWS_AT_ONCE:
            yield first_row, waiting[:ROWS_AT_ONCE]
            first_row, waiting = first_row + ROWS_AT_ONCE, waiting[ROWS_AT_ONCE:]
    if len(waiting):
        yield first_row, waiting


class ShardedCoding:
    """Codes all visible moments of a version by tasks.

    Args:
        folder: `vectors/` of the index, where all tasks can write.
        rows: the moments.
        dim: length of a vector.
        map_shards: runs `code_shard` on each shard, somewhere.
    """

    def __init__(self, folder: Location, rows: SegmentRows, dim: int, map_shards: MapShards) -> None:
        self._folder, self._rows, self._dim = folder, rows, dim
        self._map_shards = map_shards

    def __call__(self, lists: InvertedFile, name: str) -> None:
        """Fills trained lists.

        Args:
            lists: still empty.
            name: stem of the vector file that they are for; what a crash leaves behind goes with it.

        Raises:
            StorageError: a shard could not be written, or is damaged.
            Otherwise what `map_shards` raises.
        """
        trained = self._folder / f"{name}.lists"
        shards = list(self._shards(trained, name))
        try:
            write_whole(trained, bytes(lists.to_bytes()))
            for shard, sha256 in zip(shards, self._map_shards(code_shard, shards), strict=True):
                data = location(shard.out).read_bytes()
                if hashlib.sha256(data).hexdigest() != sha256:
                    raise StorageError(f"the codes {shard.out!r} are damaged: run the same command again")
                lists.merge(data)
                location(shard.out).unlink(missing_ok=True)
        finally:
            for path in (trained, *(location(shard.out) for shard in shards)):
                path.unlink(missing_ok=True)

    def _shards(self, trained: Location, name: str) -> Iterator[VectorShard]:
        for number, start in enumerate(range(0, len(self._rows), _ROWS_PER_SHARD)):
            end = min(start + _ROWS_PER_SHARD, len(self._rows))
            numbers, file_rows = self._rows.located(np.arange(start, end))
            cuts = np.flatnonzero(np.diff(numbers)) + 1
            yield VectorShard(
                lists=str(trained),
                out=str(self._folder / f"{name}.shard-{number:05d}"),
                dim=self._dim,
                first_row=start,
                moments=[
                    (self._rows.files[numbers[part[0]]], file_rows[part])
                    for part in np.split(np.arange(end - start), cuts)
                ],
            )
