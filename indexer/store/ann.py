"""Nearest vectors: exact scans, and an inverted file for collections too large to scan. The only file that knows FAISS.

The inverted file (Jégou et al. 2011) holds a code of each vector, one bit a dimension (RaBitQ, Gao and Long 2024), and
yields candidates; who asks ranks them again by the vectors themselves. Why this kind: docs/design/vectors.md.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

# Bits of a query's components while it is compared with codes: as good as 32 here, and a hundred times as fast.
_QUERY_BITS = 8
# Vectors a centroid is trained on, and rounds of k-means: more of either did not change recall.
_TRAINED_ON, _ROUNDS = 40, 8
# More lists than this would ask for an index of the centroids themselves.
_MOST_LISTS = 16_384
_ROWS_PER_ADD = 65_536
_SEED = 5
# Above this share of rows a filter changes so little that the usual lists will do.
_NEARLY_ALL = 0.9
# Bytes of vectors gathered at once.
_GATHERED_BYTES = 64 << 20


def nearest(queries: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Exact search by inner product.

    Args:
        queries: float32 [Q, dim].
        vectors: float32 [N, dim]; may be mapped from a file.
        k: how many a query.

    Returns:
        Scores float32 [Q, min(k, N)], best first, and their rows int64.
    """
    k = min(k, len(vectors))
    if k == 0 or len(queries) == 0:
        return np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    return faiss.knn(_float32(queries), _float32(vectors), k, metric=faiss.METRIC_INNER_PRODUCT)


def nearest_of(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """As `nearest`, among some rows of the vectors only."""
    step = max(1, _GATHERED_BYTES // (4 * vectors.shape[1]))
    best = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        scores, found = nearest(queries, vectors[part], k)
        best = merge(best, (scores, part[found]), k)
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
    queries: np.ndarray, vectors: np.ndarray, candidates: np.ndarray, k: int
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


def flat_bytes(vectors: np.ndarray) -> memoryview:
    """Vectors as a file of FAISS."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(_float32(vectors))
    return faiss.serialize_index(index).data


def open_flat(path: Path) -> np.ndarray:
    """Vectors float32 [N, dim] from a file that `flat_bytes` made."""
    index = faiss.read_index(str(path))
    return index.reconstruct_n(0, index.ntotal)


class Selection:
    """Rows that may be found.

    Args:
        rows: int64, in rising order.
        num_vectors: rows that there are.
    """

    def __init__(self, rows: np.ndarray, num_vectors: int) -> None:
        self.rows = rows
        self.num_vectors = num_vectors

    def __len__(self) -> int:
        return len(self.rows)

    @functools.cached_property
    def selector(self) -> Any:
        mask = np.zeros(self.num_vectors, dtype=bool)
        mask[self.rows] = True
        return faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))


class InvertedFile:
    """Codes of vectors in lists of neighbours. Row i is the i-th vector that was added."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self._ivf = faiss.extract_index_ivf(index)
        self._rotation = faiss.downcast_VectorTransform(index.chain.at(0))

    @classmethod
    def build(cls, vectors: np.ndarray) -> InvertedFile:
        """Trains on a sample, then codes all vectors, on all cores.

        Args:
            vectors: float32 [N, dim], length 1; may be mapped from a file, and is read a part at a time.
        """
        dim, num_lists = vectors.shape[1], number_of_lists(len(vectors))
        rotation = faiss.RandomRotationMatrix(dim, dim)  # codes of a bit each want no direction to stand out
        rotation.init(_SEED)
        num_sampled = min(len(vectors), _TRAINED_ON * num_lists)
        rows = np.sort(np.random.default_rng(_SEED).choice(len(vectors), num_sampled, replace=False))
        sample = rotation.apply(_float32(vectors[rows]))
        kmeans = faiss.Kmeans(
            dim,
            num_lists,
            niter=_ROUNDS,
            seed=_SEED,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=_TRAINED_ON,
        )
        kmeans.train(sample)
        quantizer = faiss.IndexFlatIP(dim)
        quantizer.add(kmeans.centroids)
        ivf = faiss.IndexIVFRaBitQ(quantizer, dim, num_lists, faiss.METRIC_INNER_PRODUCT)
        ivf.qb = _QUERY_BITS
        ivf.train(sample)
        index = faiss.IndexPreTransform(rotation, ivf)
        for start in range(0, len(vectors), _ROWS_PER_ADD):
            index.add(_float32(vectors[start : start + _ROWS_PER_ADD]))
        return cls(index)

    @classmethod
    def open(cls, path: Path) -> InvertedFile:
        """Maps a saved file: only what a search looks at is read."""
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY))

    def to_bytes(self) -> memoryview:
        return faiss.serialize_index(self._index).data

    @property
    def num_lists(self) -> int:
        return self._ivf.nlist

    @property
    def bytes_per_vector(self) -> float:
        """Size of a code, its row number, and its share of the centroids."""
        centroids = 4 * self._ivf.d * (self._ivf.nlist + self._ivf.d)
        return self._ivf.code_size + 8 + centroids / max(1, self._ivf.ntotal)

    def candidates(self, queries: np.ndarray, num: int, nprobe: int, within: Selection | None = None) -> np.ndarray:
        """Rows that are probably near: int64 [Q, num], -1 where there are fewer.

        Args:
            queries: float32 [Q, dim].
            num: rows wanted a query.
            nprobe: lists to look into. With a selection, so many more that as many rows are compared as without.
            within: what may be found, None for all.
        """
        queries = _float32(queries)
        if within is not None and len(within) < _NEARLY_ALL * within.num_vectors:
            nprobe = self._widened(queries, nprobe, within)
        inner = faiss.SearchParametersIVF(
            nprobe=min(nprobe, self.num_lists), sel=None if within is None else within.selector
        )
        return self._index.search(queries, num, params=faiss.SearchParametersPreTransform(index_params=inner))[1]

    def _widened(self, queries: np.ndarray, nprobe: int, within: Selection) -> int:
        """How many lists hold as many selected rows as `nprobe` lists hold of all, for the query that needs most."""
        enough = nprobe * within.num_vectors / self.num_lists
        if len(within) <= enough:
            return self.num_lists
        selected = np.bincount(self._list_of_row[within.rows], minlength=self.num_lists)
        nearest_lists = self._ivf.quantizer.search(self._rotation.apply(queries), self.num_lists)[1]
        return int((np.cumsum(selected[nearest_lists], axis=1) < enough).sum(axis=1).max()) + 1

    @functools.cached_property
    def _list_of_row(self) -> np.ndarray:
        result = np.empty(self._ivf.ntotal, np.int32)
        lists = self._ivf.invlists
        for number in range(self.num_lists):
            size = lists.list_size(number)
            if size:
                result[faiss.rev_swig_ptr(lists.get_ids(number), size)] = number
        return result


def number_of_lists(num_vectors: int) -> int:
    """A power of two near 4·√N, as FAISS advises; but not more than there are vectors."""
    num_vectors = max(1, num_vectors)
    return min(_MOST_LISTS, num_vectors, 2 ** round(math.log2(4 * math.sqrt(num_vectors))))


def _float32(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, dtype=np.float32)
