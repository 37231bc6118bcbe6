"""Facts about an index, for `info` and `failures`."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from indexer.storage import Location, total_bytes
from indexer.store.index import IndexStore
from indexer.store.outfile import whole_file


def describe(store: IndexStore) -> dict[str, Any]:
    """What the index holds and how it was made."""
    snapshot = store.snapshot()
    coverage = snapshot.coverage
    videos = snapshot.videos
    return {
        "index": str(store.path),
        "videos": videos.num_rows,
        "partial": pc.sum(videos["partial"]).as_py() or 0,
        "failed": snapshot.ledger.failed.num_rows,
        "segments": snapshot.num_segments,
        "frames": pc.sum(videos["num_frames"]).as_py() or 0,
        "duration_s": float(pc.sum(videos["duration_s"]).as_py() or 0.0),
        "size_bytes": total_bytes(store.path),
        "model": store.config.model,
        "model_fingerprint": store.config.model_fingerprint,
        "embedding_dim": store.config.embedding_dim,
        "frame_rate_hz": store.config.sampling.frame_rate_hz,
        "segment_length_s": store.config.sampling.segment_length_s,
        "sampling": store.config.sampling.mode,
        "vectors": {
            "kind": coverage.kind,
            "covered": coverage.covered,
            "uncovered": coverage.uncovered,
            "tombstones": coverage.tombstones,
            "bytes_per_vector": coverage.bytes_per_vector,
            "recall_at_10": coverage.recall_at_10,
            "recall_measured_with": coverage.recall_queries or None,
        },
        "ledger_version": snapshot.ledger.version,
        "format_version": store.config.format_version,
    }


def list_failures(store: IndexStore) -> list[dict[str, Any]]:
    """Videos that could not be indexed, by URI."""
    failed = store.ledger.snapshot().failed.sort_by("uri")
    return [
        {
            "video": row["uri"],
            "stage": row["error_stage"],
            "kind": row["error_kind"],
            "message": row["error_message"],
            "attempts": row["attempts"],
            "tried_at": row["indexed_at"].isoformat(),
        }
        for row in failed.to_pylist()
    ]


def write_failures(store: IndexStore, out: str | Location) -> int:
    """Writes what `list_failures` lists as a Parquet file, whole or not at all. Returns their number.

    Raises:
        UsageError: `out` is a folder.
        StorageError: it could not be written.
    """
    rows = list_failures(store)
    types = dict.fromkeys(("video", "stage", "kind", "message"), pa.string())
    schema = pa.schema(types | {"attempts": pa.int32(), "tried_at": pa.string()})
    with whole_file(out, "the failures", "failures.parquet") as path:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return len(rows)
