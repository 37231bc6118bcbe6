"""Immutable vector files: the vectors of the visible moments, for large collections an index of them, and a manifest.

    vectors/NAME.faiss           kind "flat": the vectors; kind "ivf-rabitq": codes of them in an inverted file
    vectors/NAME.vectors.npy     kind "ivf-rabitq": the vectors, row i that of code i; mapped, never read as a whole
    vectors/NAME.rows.parquet    segment_id, batch_id of each row
    vectors/NAME.json            written last: ledger version, kind, sizes, recall, SHA-256 of the others

A vector file is never changed. One whose checksums do not agree is ignored, and search reads the embeddings instead.
"""

from __future__ import annotations

import functools
import json
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from indexer.storage import Location
from indexer.store.ann import flat_vectors, nearest, nearest_of, rank_candidates
from indexer.store.file_set import ROWS, checked_files, read_rows
from indexer.store.inverted_file import InvertedFile, Selection
from indexer.store.stored_vectors import StoredVectors

FLAT, IVF = "flat", "ivf-rabitq"
_KINDS = (FLAT, IVF)
# Up to here (52,000 vectors of 384 numbers) an exact scan answers within some 10 ms on one core.
FLAT_UP_TO_BYTES = 80_000_000
# Of a filter that lets so few bytes of vectors pass, all are compared. Rows picked from everywhere read more slowly.
_GATHER_UP_TO_BYTES = 32_000_000
# Candidates by code that are ranked by vector: see docs/design/vectors.md.
_CANDIDATES_PER_HIT, _MORE_CANDIDATES = 4, 100
# Vectors compared by code, at least, for each hit.
_COMPARED_PER_HIT = 20
# Lists are learnt anew for a collection that has become so many times larger, or smaller.
_OUTGROWN = 2


@dataclass(frozen=True, kw_only=True)
class VectorManifest:
    """What NAME.json says.

    Attributes:
        name: stem of the files.
        ledger_version: version of `videos/` that the file covers.
        kind: "flat" or "ivf-rabitq".
        num_vectors: rows.
        dim: length of a vector.
        sha256: checksum of each of the other files by suffix.
        bytes_per_vector: what a search keeps in memory for each row, beside its ids.
        num_lists: lists of the inverted file; 0 for "flat".
        nprobe: how many of them a search looks into.
        recall_at_10: share of the ten nearest that are found, measured against exact search with queries that `nprobe`
            was not tuned with.
        recall_queries: what these queries are: "texts", or "moments" where the model was not installed; "" for "flat".
        trained_on: how many vectors there were when the lists were learnt; 0: as many as now.
    """

    name: str
    ledger_version: int
    kind: str
    num_vectors: int
    dim: int
    sha256: dict[str, str]
    bytes_per_vector: float = 0.0
    num_lists: int = 0
    nprobe: int = 0
    recall_at_10: float = 1.0
    recall_queries: str = ""
    trained_on: int = 0


class VectorFile:
    """One vector file, opened for search.

    Args:
        read: gives its vectors, when they are asked for.

    Attributes:
        manifest: see `VectorManifest`.
        segment_ids: int64 [N].
        batch_ids: string [N], as a dictionary.
    """

    def __init__(
        self,
        manifest: VectorManifest,
        read: Callable[[], np.ndarray],
        segment_ids: np.ndarray,
        batch_ids: pa.DictionaryArray,
        inverted: InvertedFile | None = None,
    ) -> None:
        self.manifest = manifest
        self.segment_ids = segment_ids
        self.batch_ids = batch_ids
        self._read = read
        self._inverted = inverted

    @functools.cached_property
    def vectors(self) -> np.ndarray:
        """float32 [N, dim]; mapped from a file if the collection is large."""
        return self._read()

    @property
    def trained_on(self) -> int:
        """How many vectors there were when its lists were learnt."""
        return self.manifest.trained_on or self.manifest.num_vectors

    def lists_for(self, num_vectors: int) -> InvertedFile | None:
        """Its lists, empty, for a file of so many vectors; None where there are none or they no longer fit."""
        fits = self.trained_on / _OUTGROWN <= num_vectors <= self.trained_on * _OUTGROWN
        return self._inverted.emptied() if self._inverted is not None and fits else None

    def search(self, queries: np.ndarray, k: int, within: Selection | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Nearest rows by inner product. Always as many as there are, up to k.

        Args:
            queries: float32 [Q, dim], length 1.
            k: rows wanted a query.
            within: what may be found, None for all.

        Returns:
            Scores float32 [Q, K], best first, and rows int64 [Q, K], with K = min(k, rows that may be found).
        """
        num_rows = len(self.vectors) if within is None else len(within)
        k = min(k, num_rows)
        is_few = within is not None and 4 * self.manifest.dim * num_rows <= _GATHER_UP_TO_BYTES
        if self._inverted is None or is_few or 2 * k >= num_rows:
            return self._exact(queries, k, within)
        nprobe = max(self.manifest.nprobe, -(-_COMPARED_PER_HIT * k * self.manifest.num_lists // len(self.vectors)))
        scores, rows = search_by_codes(self._inverted, self.vectors, queries, k, nprobe, within)
        short = np.flatnonzero(rows[:, -1] < 0)
        if len(short):
            scores[short], rows[short] = self._exact(queries[short], k, within)
        return scores, rows

    def _exact(self, queries: np.ndarray, k: int, within: Selection | None) -> tuple[np.ndarray, np.ndarray]:
        if within is None:
            return nearest(queries, self.vectors, k)
        return nearest_of(queries, self.vectors, within.rows, k)


def search_by_codes(
    inverted: InvertedFile,
    vectors: np.ndarray | StoredVectors,
    queries: np.ndarray,
    k: int,
    nprobe: int,
    within: Selection | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The best k of the candidates of an inverted file; -1 where it found fewer."""
    num = min(_CANDIDATES_PER_HIT * k + _MORE_CANDIDATES, len(vectors))
    candidates = inverted.candidates(queries, num, nprobe, within)
    return rank_candidates(queries, vectors, candidates, k)


def kind_for(num_vectors: int, dim: int) -> str:
    """The kind of file that fits so many vectors."""
    return FLAT if 4 * dim * num_vectors <= FLAT_UP_TO_BYTES else IVF


def list_manifests(folder: Location) -> Iterator[VectorManifest]:
    """Manifests in the folder, newest ledger version first, without unreadable ones and kinds of other versions."""
    for path in sorted(folder.glob("v*.json"), key=_name, reverse=True):
        try:
            manifest = VectorManifest(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        if manifest.kind in _KINDS:
            yield manifest


def _name(path: Location) -> str:
    return path.name


def open_vector_file(folder: Location, manifest: VectorManifest, *, read_all: bool = False) -> VectorFile:
    """Opens a vector file after checking its checksums. One in a bucket is read through a copy on this machine.

    Args:
        folder: `vectors/` of an index.
        manifest: which file.
        read_all: compare checksums even of large files that this machine has compared before and that look untouched.

    Raises:
        IndexFormatError: a file is missing, cut short or changed.
        StorageError: its bucket cannot be reached.
    """
    paths = checked_files("vector file", folder, manifest.name, manifest.sha256, read_all=read_all)
    keys = read_rows(paths[ROWS])
    if manifest.kind == FLAT:
        read = functools.partial(flat_vectors, _mapped(paths[".faiss"]), manifest.num_vectors, manifest.dim)
        return VectorFile(manifest, read, *keys)
    vectors = np.load(paths[".vectors.npy"], mmap_mode="r")
    return VectorFile(manifest, lambda: vectors, *keys, InvertedFile.open(paths[".faiss"]))


def _mapped(path: Path) -> mmap.mmap:
    """So that it can be read even when it has been deleted."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def delete_older(folder: Location, keep: int = 2) -> None:
    """Deletes all but the newest vector files; a reader that has one open keeps it."""
    for manifest in list(list_manifests(folder))[keep:]:
        delete_files(folder, manifest.name)


def delete_others(folder: Location, kept: VectorManifest) -> None:
    """Deletes all vector files but one, whatever their version."""
    for manifest in list(list_manifests(folder)):
        if manifest.name != kept.name:
            delete_files(folder, manifest.name)


def delete_files(folder: Location, name: str) -> None:
    """Deletes what there is of one vector file, its manifest first."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    parts: list[Location] = [*folder.glob(f"{name}.*")]
    for path in parts:
        path.unlink(missing_ok=True)
