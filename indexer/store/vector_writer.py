"""Writes vector files: see `indexer.store.vectors`. Codes and vectors stream through files; memory holds a sample."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import StorageError
from indexer.storage import Location, new_file, write_whole
from indexer.store.ann import InvertedFile, flat_bytes, nearest
from indexer.store.tuning import RECALL_AT, recall, tune
from indexer.store.vectors import FLAT, VectorManifest, delete_files, kind_for, search_by_codes

# Moments as queries where there are no texts.
_NUM_MOMENT_QUERIES = 200


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

    Raises:
        StorageError: the files could not be written.
    """
    kind = kind or kind_for(len(segment_ids), dim)
    name = f"v{ledger_version:012d}-{uuid.uuid4().hex[:8]}"
    writer = _Writer(folder, name)
    try:
        folder.mkdir(exist_ok=True)
        write = _write_flat if kind == FLAT else _write_ivf
        facts = write(writer, parts, len(segment_ids), dim, queries)
        with writer.file(".rows.parquet") as path:
            pq.write_table(pa.table({"segment_id": segment_ids, "batch_id": batch_ids}), path, compression="zstd")
        manifest = VectorManifest(
            name=name,
            ledger_version=ledger_version,
            kind=kind,
            num_vectors=len(segment_ids),
            dim=dim,
            sha256=writer.sha256,
            **facts,
        )
        write_whole(folder / f"{name}.json", json.dumps(asdict(manifest), indent=1).encode())
    except OSError as error:
        delete_files(folder, name)
        raise StorageError(f"the vectors could not be written to {str(folder)!r}: {error.strerror or error}") from error
    return manifest


class _Writer:
    """Writes the files of one name and remembers their checksums."""

    def __init__(self, folder: Location, name: str) -> None:
        self._folder, self._name = folder, name
        self.sha256: dict[str, str] = {}

    @contextmanager
    def file(self, suffix: str) -> Iterator[Path]:
        """A path to write to; what was written gets its name when the block ends well."""
        with new_file(self._folder / f"{self._name}{suffix}") as path:
            yield path
            self.sha256[suffix] = _checksum(path)


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_flat(
    writer: _Writer, parts: Iterable[np.ndarray], num: int, dim: int, queries: np.ndarray | None
) -> dict[str, Any]:
    vectors = np.concatenate([np.empty((0, dim), np.float32), *parts])
    with writer.file(".faiss") as path:
        path.write_bytes(flat_bytes(vectors))
    return {"bytes_per_vector": 4.0 * dim}


def _write_ivf(
    writer: _Writer, parts: Iterable[np.ndarray], num: int, dim: int, queries: np.ndarray | None
) -> dict[str, Any]:
    with writer.file(".vectors.npy") as path:
        _write_npy(path, parts, num, dim)
        vectors = np.load(path, mmap_mode="r")
        inverted = InvertedFile.build(vectors)
        with writer.file(".faiss") as codes:
            codes.write_bytes(inverted.to_bytes())
        facts = {"bytes_per_vector": round(inverted.bytes_per_vector, 1), "num_lists": inverted.num_lists}
        return facts | _tuned(inverted, vectors, queries)


def _write_npy(path: Path, parts: Iterable[np.ndarray], num: int, dim: int) -> None:
    """Not through a mapping, which a full disk would end with a signal instead of an error."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (num, dim)})
        for part in parts:
            file.write(np.ascontiguousarray(part, dtype="<f4").data)


def _tuned(inverted: InvertedFile, vectors: np.ndarray, queries: np.ndarray | None) -> dict[str, Any]:
    """Tunes with every other query, and measures with the rest."""
    kind = "moments" if queries is None else "texts"
    if queries is None:
        queries = vectors[np.linspace(0, len(vectors) - 1, min(_NUM_MOMENT_QUERIES, len(vectors))).astype(np.int64)]
    exact = nearest(queries, vectors, RECALL_AT)[1]

    def search(some: np.ndarray, nprobe: int) -> np.ndarray:
        return search_by_codes(inverted, vectors, some, exact.shape[1], nprobe)[1]

    nprobe = tune(search, queries[::2], exact[::2], inverted.num_lists)
    others = slice(1 if len(queries) > 1 else 0, None, 2)
    measured = recall(search(queries[others], nprobe), exact[others])
    return {"nprobe": nprobe, "recall_at_10": round(measured, 4), "recall_queries": kind}
