"""Writes vector files: see `indexer.store.vectors`. Vectors stream through a file; memory holds a sample, and codes."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from indexer.errors import StorageError
from indexer.storage import Location, write_whole
from indexer.store.ann import flat_file, nearest_stored
from indexer.store.file_set import FileSet
from indexer.store.inverted_file import InvertedFile
from indexer.store.stored_vectors import StoredVectors
from indexer.store.tuning import RECALL_AT, RECALL_TARGET, recall, tune
from indexer.store.vectors import FLAT, VectorFile, VectorManifest, delete_files, kind_for, search_by_codes

# Moments as queries where there are no texts.
_NUM_MOMENT_QUERIES = 200
# Lists of an earlier file are good enough as long as this recall is measured with them, and as long as that takes no
# more than so many times the lists that it took then.
_LEAST_RECALL, _MOST_NPROBE_GROWTH = RECALL_TARGET - 0.02, 1.5


def build_vector_file(
    folder: Location,
    *,
    parts: Iterable[np.ndarray],
    dim: int,
    segment_ids: np.ndarray,
    batch_ids: pa.Array,
    ledger_version: int,
    kind: str | None = None,
    queries: np.ndarray | None = None,
    previous: VectorFile | None = None,
    code: Callable[[InvertedFile, str], None] | None = None,
) -> VectorManifest:
    """Writes a vector file for a ledger version; it becomes visible with its manifest, written last.

    Args:
        folder: `vectors/` of an index.
        parts: the vectors float32 [N, dim], length 1, in parts [n, dim].
        dim: length of a vector.
        segment_ids: int64 [N].
        batch_ids: string [N], the batch each row belongs to.
        ledger_version: version of `videos/` whose visible moments these are.
        kind: "flat" or "ivf-rabitq"; None chooses by size.
        queries: float32 [Q, dim], texts that the search is tuned and measured with; None takes some of the vectors.
        previous: an earlier file, whose lists are used again where they still fit.
        code: fills trained lists with the codes of all vectors, given the stem of the files; None does it here.

    Raises:
        StorageError: the files could not be written.
    """
    kind = kind or kind_for(len(segment_ids), dim)
    name = f"v{ledger_version:012d}-{uuid.uuid4().hex[:8]}"
    files = FileSet(folder, name)
    with _nothing_left_of(folder, name):
        folder.mkdir(exist_ok=True)
        if kind == FLAT:
            facts = _write_flat(files, parts, len(segment_ids), dim)
        else:
            with files.file(".vectors.npy") as path:
                _write_npy(path, parts, len(segment_ids), dim)
                vectors = StoredVectors(path)
                facts = _write_codes(files, vectors, _Tuning(vectors, queries), previous, code)
        files.write_rows(segment_ids, batch_ids)
        manifest = VectorManifest(
            name=name,
            ledger_version=ledger_version,
            kind=kind,
            num_vectors=len(segment_ids),
            dim=dim,
            sha256=files.sha256,
            **facts,
        )
        write_whole(folder / f"{name}.json", json.dumps(asdict(manifest), indent=1).encode())
    return manifest


@contextlib.contextmanager
def _nothing_left_of(folder: Location, name: str) -> Iterator[None]:
    """Deletes the files of a name where the block fails; a failed write becomes a StorageError."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError, StorageError):  # what is left has no manifest: nobody reads it
            delete_files(folder, name)
        if not isinstance(error, OSError):
            raise
        raise StorageError(f"the vectors could not be written to {str(folder)!r}: {error.strerror or error}") from error


def _write_flat(files: FileSet, parts: Iterable[np.ndarray], num: int, dim: int) -> dict[str, Any]:
    with files.file(".faiss") as path, open(path, "wb") as file:
        file.writelines(flat_file(num, dim, parts))
    return {"bytes_per_vector": 4.0 * dim}


def _write_codes(
    files: FileSet,
    vectors: StoredVectors,
    tuning: _Tuning,
    previous: VectorFile | None,
    code: Callable[[InvertedFile, str], None] | None,
) -> dict[str, Any]:
    """With the lists of the earlier file if they are still good, else with new ones."""
    num = len(vectors)
    lists = previous.lists_for(num) if previous else None
    trained_on = previous.trained_on if previous and lists else num
    while True:
        inverted = lists or InvertedFile.train(vectors)
        if code is None:
            inverted.add(vectors)
        else:
            code(inverted, files.name)
        facts = tuning.of(inverted)
        if not (previous and lists) or _are_good(facts, previous.manifest):
            break
        lists, trained_on = None, num
    with files.file(".faiss") as path:
        inverted.write(path)
    sizes = {"bytes_per_vector": round(inverted.bytes_per_vector, 1), "num_lists": inverted.num_lists}
    return facts | sizes | {"trained_on": trained_on}


def _are_good(facts: dict[str, Any], earlier: VectorManifest) -> bool:
    return facts["recall_at_10"] >= _LEAST_RECALL and facts["nprobe"] <= _MOST_NPROBE_GROWTH * earlier.nprobe


def _write_npy(path: Path, parts: Iterable[np.ndarray], num: int, dim: int) -> None:
    """Not through a mapping, which a full disk would end with a signal instead of an error."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (num, dim)})
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype="<f4").data)


class _Tuning:
    """Tunes an inverted file with every other query, and measures with the rest.

    Args:
        vectors: float32 [N, dim], all there are.
        queries: float32 [Q, dim], texts; None takes some of the vectors.
    """

    def __init__(self, vectors: StoredVectors, queries: np.ndarray | None) -> None:
        self._vectors = vectors
        self._kind = "moments" if queries is None else "texts"
        some = np.linspace(0, len(vectors) - 1, min(_NUM_MOMENT_QUERIES, len(vectors))).astype(np.int64)
        self._queries = vectors[some] if queries is None else queries
        self._exact = nearest_stored(self._queries, vectors, RECALL_AT)[1]

    def of(self, inverted: InvertedFile) -> dict[str, Any]:
        """`nprobe`, `recall_at_10` and `recall_queries` of the manifest."""

        def search(some: np.ndarray, nprobe: int) -> np.ndarray:
            return search_by_codes(inverted, self._vectors, some, self._exact.shape[1], nprobe)[1]

        nprobe = tune(search, self._queries[::2], self._exact[::2], inverted.num_lists)
        others = slice(1 if len(self._queries) > 1 else 0, None, 2)
        measured = recall(search(self._queries[others], nprobe), self._exact[others])
        return {"nprobe": nprobe, "recall_at_10": round(measured, 4), "recall_queries": self._kind}
