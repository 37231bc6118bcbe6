"""Immutable vector files: a FAISS index, the ids of its rows, and a manifest. The only file that knows FAISS.

    vectors/NAME.faiss           the index; row i of it is row i of the ids
    vectors/NAME.rows.parquet    segment_id, batch_id
    vectors/NAME.json            written last: ledger version, kind, sizes, SHA-256 of the other two

A vector file is never changed. One whose checksums do not agree is ignored, and search reads the embeddings instead.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from indexer.errors import IndexFormatError, StorageError
from indexer.storage import DamagedCopyError, Location, verified_copy, write_whole

# Up to here the exact scan answers within some 10 ms on one core; above, HNSW does with a recall near 1.
FLAT_UP_TO = 50_000
_HNSW_NEIGHBOURS = 32
_HNSW_BUILD_EF = 80
_HNSW_SEARCH_EF = 128


@dataclass(frozen=True, kw_only=True)
class VectorManifest:
    """What NAME.json says.

    Attributes:
        name: stem of the three files.
        ledger_version: version of `videos/` that the file covers.
        kind: "flat" or "hnsw".
        num_vectors: rows.
        dim: length of a vector.
        sha256: checksum of each of the other two files by suffix.
    """

    name: str
    ledger_version: int
    kind: str
    num_vectors: int
    dim: int
    sha256: dict[str, str]


class VectorFile:
    """One vector file, opened for search."""

    def __init__(self, manifest: VectorManifest, index: Any, segment_ids: np.ndarray, batch_ids: pa.Array) -> None:
        self.manifest = manifest
        self.segment_ids = segment_ids
        self.batch_ids = batch_ids
        self._index = index

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Nearest rows by inner product.

        Args:
            queries: float32 [Q, dim], length 1.
            k: rows wanted a query.
            allowed: bool [num_vectors]; False rows are skipped, None allows all.

        Returns:
            Scores float32 [Q, k], best first, and rows int64 [Q, k]; -1 where there are fewer than k.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        selector: Any = None
        parameters: Any
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(bitmap)
        if self.manifest.kind == "hnsw":
            if allowed is not None and np.count_nonzero(allowed) <= FLAT_UP_TO:
                # A walk through the graph misses what it seldom may stop at; looking at so few is as fast, and exact.
                flat = faiss.downcast_index(self._index.storage)
                return flat.search(queries, k, params=faiss.SearchParameters(sel=selector))
            parameters = faiss.SearchParametersHNSW(sel=selector, efSearch=max(_HNSW_SEARCH_EF, 2 * k))
        else:
            parameters = faiss.SearchParameters(sel=selector)
        return self._index.search(queries, k, params=parameters)

    def reconstruct(self, rows: np.ndarray) -> np.ndarray:
        """Stored vectors float32 [N, dim] of some rows."""
        return (
            np.stack([self._index.reconstruct(int(row)) for row in rows])
            if len(rows)
            else np.empty((0, self.manifest.dim), np.float32)
        )


def build_vector_file(
    folder: Location,
    *,
    vectors: np.ndarray,
    segment_ids: np.ndarray,
    batch_ids: pa.Array,
    ledger_version: int,
    kind: str | None = None,
) -> VectorManifest:
    """Writes a vector file for a ledger version; it becomes visible with its manifest, written last.

    Args:
        folder: `vectors/` of an index.
        vectors: float32 [N, dim], length 1.
        segment_ids: int64 [N].
        batch_ids: string [N], the batch each row belongs to.
        ledger_version: version of `videos/` whose visible moments these are.
        kind: "flat" or "hnsw"; None chooses by size.

    Raises:
        StorageError: the files could not be written.
    """
    kind = kind or ("flat" if len(vectors) <= FLAT_UP_TO else "hnsw")
    index: Any = faiss.IndexFlatIP(vectors.shape[1])
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(vectors.shape[1], _HNSW_NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = _HNSW_BUILD_EF
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    name = f"v{ledger_version:012d}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(exist_ok=True)
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"segment_id": segment_ids, "batch_id": batch_ids}), sink, compression="zstd")
        contents = {".faiss": faiss.serialize_index(index).tobytes(), ".rows.parquet": sink.getvalue().to_pybytes()}
        for suffix, content in contents.items():
            write_whole(folder / f"{name}{suffix}", content)
        manifest = VectorManifest(
            name=name,
            ledger_version=ledger_version,
            kind=kind,
            num_vectors=len(vectors),
            dim=vectors.shape[1],
            sha256={suffix: hashlib.sha256(content).hexdigest() for suffix, content in contents.items()},
        )
        write_whole(folder / f"{name}.json", json.dumps(asdict(manifest), indent=1).encode())
    except OSError as error:
        for suffix in (".faiss", ".rows.parquet", ".json"):
            (folder / f"{name}{suffix}").unlink(missing_ok=True)
        raise StorageError(f"the vectors could not be written to {str(folder)!r}: {error.strerror or error}") from error
    return manifest


def list_manifests(folder: Location) -> Iterator[VectorManifest]:
    """Manifests in the folder, newest ledger version first; unreadable ones are passed over."""
    for path in sorted(folder.glob("v*.json"), key=_name, reverse=True):
        try:
            yield VectorManifest(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue


def _name(path: Location) -> str:
    return path.name


def open_vector_file(folder: Location, manifest: VectorManifest) -> VectorFile:
    """Opens a vector file after checking its checksums. One in a bucket is read through a copy on this machine.

    Raises:
        IndexFormatError: a file is missing, cut short or changed.
        StorageError: its bucket cannot be reached.
    """
    paths = {}
    for suffix, wanted in manifest.sha256.items():
        name = f"{manifest.name}{suffix}"
        try:
            paths[suffix] = str(verified_copy(folder / name, wanted))
        except OSError as error:
            raise IndexFormatError(f"the vector file {name!r} cannot be read: {error.strerror or error}") from error
        except DamagedCopyError as error:
            raise IndexFormatError(
                f"the vector file {name!r} is damaged: its checksum differs from the one in its manifest"
            ) from error
    index = faiss.read_index(paths[".faiss"])
    with pq.ParquetFile(paths[".rows.parquet"]) as parquet:
        rows = parquet.read(use_threads=False)
    return VectorFile(manifest, index, rows["segment_id"].to_numpy(), rows["batch_id"].combine_chunks())


def delete_older(folder: Location, keep: int = 2) -> None:
    """Deletes all but the newest vector files; a reader that has one open keeps it in memory."""
    for manifest in list(list_manifests(folder))[keep:]:
        _delete(folder, manifest)


def delete_others(folder: Location, kept: VectorManifest) -> None:
    """Deletes all vector files but one, whatever their version."""
    for manifest in list(list_manifests(folder)):
        if manifest.name != kept.name:
            _delete(folder, manifest)


def _delete(folder: Location, manifest: VectorManifest) -> None:
    for suffix in (".json", ".faiss", ".rows.parquet"):
        (folder / f"{manifest.name}{suffix}").unlink(missing_ok=True)
