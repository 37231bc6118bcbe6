"""Nearest vectors by exact scans. This file and `inverted_file.py` are the only ones that know FAISS."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable, Iterator

import faiss
import numpy as np

from indexer.store.stored_vectors import StoredVectors

# Bytes of vectors gathered at once.
_GATHERED_BYTES = 64 << 20
# Bytes of vectors that are read at once while all of a file are compared.
_READ_BYTES = 16 << 20
# How many numbers follow, before the vectors in a file of FAISS.
_COUNT = struct.Struct("<Q")


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact search by inner product.

    Args:
        queries: float32 [Q, dim].
        vectors: float32 [N, dim].
        k: how many a query.

    Returns:
        Scores float32 [Q, min(k, N)], best first, and their rows int64.
    """
    k = min(k, len(vectors))
    if k == 0 or len(queries) == 0:
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    return faiss.knn(float32(queries), float32(vectors), k, metric=faiss.METRIC_INNER_PRODUCT)


def nearest_of(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, among some rows of the vectors only."""
    step = max(1, _GATHERED_BYTES // (4 * vectors.shape[1]))
    best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        scores, found = nearest(queries, vectors[part], k)
        best = merge(best, (scores, part[found]), k)
    return best


def nearest_stored(queries: np.ndarray, vectors: StoredVectors, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, among vectors in a file, of which only a few MB are in memory at a time."""
    step = max(1, _READ_BYTES // (4 * vectors.shape[1]))
    best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(vectors), step):
        scores, found = nearest(queries, vectors[start : start + step], k)
        best = merge(best, (scores, start + found), k)
    return best


def merge(
    some: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of two lists of scores and rows a query, best first."""
    return _best(np.hstack([some[0], others[0]]), np.hstack([some[1], others[1]]), k)


def _best(scores: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def rank_candidates(
    queries: np.ndarray, vectors: np.ndarray | StoredVectors, candidates: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best candidates by their true inner products.

    Args:
        queries: float32 [Q, dim].
        vectors: float32 [N, dim].
        candidates: int64 [Q, C], rows of the vectors; -1 is none.
        k: how many a query.

    Returns:
        Scores float32 [Q, min(k, C)] and rows int64, best first; -1 with score -inf where there are fewer.
    """
    scores = np.empty(candidates.shape, np.float32)
    step = max(1, _GATHERED_BYTES // (4 * vectors.shape[1] * max(1, candidates.shape[1])))
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        gathered = vectors[np.maximum(candidates[part], 0)]
        scores[part] = (gathered @ queries[part, :, None])[:, :, 0]
    scores[candidates < 0] = -np.inf
    return _best(scores, candidates, k)


def flat_file(num: int, dim: int, parts: Iterable[np.ndarray]) -> Iterator[bytes | memoryview]:
    """What a file of FAISS with vectors float32 [num, dim] holds, a part at a time."""
    empty = faiss.IndexFlatIP(dim)
    empty.ntotal = num
    yield bytes(faiss.serialize_index(empty).data)[: -_COUNT.size] + _COUNT.pack(num * dim)
    for part in parts:
        yield float32(part).data


def flat_vectors(file: mmap.mmap, num: int, dim: int) -> np.ndarray:
    """Vectors float32 [num, dim] from a mapped `flat_file`; copied, for they lie at an odd address there."""
    vectors = np.empty((num, dim), np.float32)
    vectors.reshape(-1).view(np.uint8)[:] = np.frombuffer(file, np.uint8)[len(file) - vectors.nbytes :]
    file.madvise(mmap.MADV_DONTNEED)
    return vectors


def float32(vectors: np.ndarray) -> np.ndarray:
    """As FAISS must be given them."""
    return np.ascontiguousarray(vectors, dtype=np.float32)
