"""An inverted file, for collections too large to compare all vectors.

It (Jégou et al. 2011) holds a code of each vector, one bit a dimension (RaBitQ, Gao and Long 2024), and yields
candidates; who asks ranks them again by the vectors themselves. Why this kind: docs/design/vectors.md.
"""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from indexer.store.ann import float32
from indexer.store.stored_vectors import StoredVectors

# Rows that are coded at once: more take memory and no less time.
ROWS_AT_ONCE = 8_192
# Bits of a query's components while it is compared with codes: as good as 32 here, and a hundred times as fast.
_QUERY_BITS = 8
# Vectors a centroid is trained on, and rounds of k-means: more of either did not change recall.
_TRAINED_ON, _ROUNDS = 40, 8
# More lists than this would ask for an index of the centroids themselves.
_MOST_LISTS = 16_384
_SEED = 5
# Above this share of rows a filter changes so little that the usual lists will do.
_NEARLY_ALL = 0.9


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
    def train(cls, vectors: np.ndarray | StoredVectors) -> InvertedFile:
        """Learns lists that fit a collection from a sample of it, on all cores. No vector is in them yet.

        Args:
            vectors: float32 [N, dim], length 1.
        """
        dim, num_lists = vectors.shape[1], number_of_lists(len(vectors))
        rotation = faiss.RandomRotationMatrix(dim, dim)  # codes of a bit each want no direction to stand out
        rotation.init(_SEED)
        num_sampled = min(len(vectors), _TRAINED_ON * num_lists)
        rows = np.sort(np.random.default_rng(_SEED).choice(len(vectors), num_sampled, replace=False))
        kmeans = faiss.Kmeans(
            dim,
            num_lists,
            niter=_ROUNDS,
            seed=_SEED,
            spherical=True,
            min_points_per_centroid=1,
            max_points_per_centroid=_TRAINED_ON,
        )
        kmeans.train(_rotated(vectors, rows, rotation))
        return cls(_empty_index(rotation, kmeans.centroids))

    def emptied(self) -> InvertedFile:
        """The same lists without the vectors in them."""
        rotation = faiss.RandomRotationMatrix(self._ivf.d, self._ivf.d)
        rotation.init(_SEED)
        faiss.copy_array_to_vector(faiss.vector_to_array(self._rotation.A), rotation.A)
        return InvertedFile(_empty_index(rotation, self._ivf.quantizer.reconstruct_n(0, self.num_lists)))

    def add(self, vectors: np.ndarray | StoredVectors, first_row: int = 0) -> None:
        """Codes vectors, on all cores, and puts them into the lists.

        Args:
            vectors: float32 [N, dim], length 1; read a part at a time.
            first_row: row number of the first of them, a multiple of `ROWS_AT_ONCE`: codes depend in the last bit on
                which vectors are coded at once.
        """
        for start in range(0, len(vectors), ROWS_AT_ONCE):
            part = float32(vectors[start : start + ROWS_AT_ONCE])
            self._index.add_with_ids(part, np.arange(first_row + start, first_row + start + len(part)))

    def merge(self, data: bytes) -> None:
        """Puts what `to_bytes` of another with the same lists gave into these lists; later rows must come later."""
        self._index.merge_from(faiss.deserialize_index(np.frombuffer(data, np.uint8)), 0)

    @classmethod
    def from_bytes(cls, data: bytes) -> InvertedFile:
        """What `to_bytes` gave."""
        return cls(faiss.deserialize_index(np.frombuffer(data, np.uint8)))

    @classmethod
    def open(cls, path: Path) -> InvertedFile:
        """Maps a saved file: only what a search looks at is read."""
        return cls(faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY))

    def to_bytes(self) -> memoryview:
        return faiss.serialize_index(self._index).data

    def write(self, path: Path) -> None:
        """Writes what `to_bytes` gives, without making it in memory. By Python's own means: FAISS, which writes a file
        by itself, passes over a full disk in silence."""
        with open(path, "wb") as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

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
        queries = float32(queries)
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


def _rotated(vectors: np.ndarray | StoredVectors, rows: np.ndarray, rotation: Any) -> np.ndarray:
    """Some vectors, float32 [R, dim], rotated a part at a time."""
    result = np.empty((len(rows), vectors.shape[1]), np.float32)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        result[part] = rotation.apply(float32(vectors[rows[part]]))
    return result


def number_of_lists(num_vectors: int) -> int:
    """A power of two near 4·√N, as FAISS advises; but not more than there are vectors."""
    num_vectors = max(1, num_vectors)
    return min(_MOST_LISTS, num_vectors, 2 ** round(math.log2(4 * math.sqrt(num_vectors))))


def _empty_index(rotation: Any, centroids: np.ndarray) -> Any:
    """Lists around rotated centroids float32 [L, dim]."""
    num_lists, dim = centroids.shape
    quantizer = faiss.IndexFlatIP(dim)
    quantizer.add(centroids)
    ivf = faiss.IndexIVFRaBitQ(quantizer, dim, num_lists, faiss.METRIC_INNER_PRODUCT)
    ivf.qb = _QUERY_BITS
    ivf.train(centroids)  # learns nothing: what it needs are the centroids
    return faiss.IndexPreTransform(rotation, ivf)
