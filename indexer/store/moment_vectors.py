"""Search among the visible moments of a snapshot by vectors: a vector file, completed by what it does not cover."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from indexer.store.ann import merge, nearest
from indexer.store.inverted_file import Selection
from indexer.store.vectors import VectorFile


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How much of a snapshot its vector file covers, and how well it does.

    Attributes:
        kind: "flat", "ivf-rabitq" or "none".
        covered: visible moments in the vector file.
        uncovered: visible moments that are scanned exactly.
        tombstones: rows of the vector file that are no longer visible.
        bytes_per_vector: what the file keeps in memory for each row, beside its ids; None if there is no file.
        recall_at_10: share of the ten nearest that the file finds, as measured when it was made; 1 if it is exact.
        recall_queries: what it was measured with, "texts" or "moments"; "" if the file is exact.
        damaged: what was wrong with newer vector files that had to be passed over.
    """

    kind: str
    covered: int
    uncovered: int
    tombstones: int
    bytes_per_vector: float | None = None
    recall_at_10: float | None = None
    recall_queries: str = ""
    damaged: tuple[str, ...]


class MomentVectors:
    """The vectors of N visible moments.

    Args:
        file: the newest usable vector file, None if there is none.
        file_to_row: int32 or int64, the moment of each row of the file, -1 where it is no longer visible.
        num_moments: N.
        read: fused vectors float32 [R, dim] of some moments, from the tables.
        damaged: what was wrong with newer vector files.

    Attributes:
        file: as given.
    """

    def __init__(
        self,
        file: VectorFile | None,
        file_to_row: np.ndarray,
        num_moments: int,
        read: Callable[[np.ndarray], np.ndarray],
        damaged: Sequence[str],
    ) -> None:
        self.file = file
        self._file_to_row = file_to_row
        self._num_moments = num_moments
        self._read = read
        self._damaged = tuple(damaged)

    @property
    def coverage(self) -> Coverage:
        covered = int((self._file_to_row >= 0).sum())
        manifest = self.file.manifest if self.file else None
        return Coverage(
            kind=manifest.kind if manifest else "none",
            covered=covered,
            uncovered=self._num_moments - covered,
            tombstones=len(self._file_to_row) - covered,
            bytes_per_vector=(manifest.bytes_per_vector or 4.0 * manifest.dim) if manifest else None,
            recall_at_10=manifest.recall_at_10 if manifest else None,
            recall_queries=manifest.recall_queries if manifest else "",
            damaged=self._damaged,
        )

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """See `Snapshot.search`."""
        passing = None if allowed is None else np.flatnonzero(allowed)
        k = min(k, self._num_moments if passing is None else len(passing))
        best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
        if self.file is not None and k:
            scores, found = self.file.search(queries, k, self._within(passing))
            best = scores, self._file_to_row[found].astype(np.int64)
        uncovered, vectors = self._uncovered, self._uncovered_vectors
        if allowed is not None:
            is_allowed = allowed[uncovered]
            if not is_allowed.all():
                uncovered, vectors = uncovered[is_allowed], vectors[is_allowed]
        if len(uncovered):
            scores, found = nearest(queries, vectors, k)
            best = merge(best, (scores, uncovered[found]), k)
        return best

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """See `Snapshot.vectors_of`."""
        if self.file is None:
            return self._read(rows)
        in_file = self._row_to_file[rows]
        vectors = np.empty((len(rows), self.file.manifest.dim), np.float32)
        vectors[in_file >= 0] = self.file.vectors[in_file[in_file >= 0]]
        if (in_file < 0).any():
            vectors[in_file < 0] = self._uncovered_vectors[np.searchsorted(self._uncovered, rows[in_file < 0])]
        return vectors

    def _within(self, passing: np.ndarray | None) -> Selection | None:
        if passing is None:
            return self._all_visible
        rows = self._row_to_file[passing]
        return Selection(np.sort(rows[rows >= 0]), len(self._file_to_row))

    @functools.cached_property
    def _all_visible(self) -> Selection | None:
        visible = np.flatnonzero(self._file_to_row >= 0)
        return None if len(visible) == len(self._file_to_row) else Selection(visible, len(self._file_to_row))

    @functools.cached_property
    def _row_to_file(self) -> np.ndarray:
        result = np.full(self._num_moments, -1, dtype=self._file_to_row.dtype)
        visible = np.flatnonzero(self._file_to_row >= 0)
        result[self._file_to_row[visible]] = visible
        return result

    @functools.cached_property
    def _uncovered(self) -> np.ndarray:
        return np.flatnonzero(self._row_to_file < 0)

    @functools.cached_property
    def _uncovered_vectors(self) -> np.ndarray:
        return self._read(self._uncovered)
