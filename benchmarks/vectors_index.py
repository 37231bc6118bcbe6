"""An index of made-up vectors: real tables, ledger and files, but no video and no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.moment_vectors import MOMENTS_PER_VIDEO
from indexer import schema
from indexer.config import IndexConfig
from indexer.store.index import IndexStore
from indexer.store.segments_table import write_segment_file

DIM = 384


def config() -> IndexConfig:
    """Of an index that no model made."""
    return IndexConfig(model="made-up", model_fingerprint="0" * 64, embedding_dim=DIM, feature_shape=(1, 1))


def add_videos(store: IndexStore, vectors: np.ndarray, batch: str) -> None:
    """Commits moments as a run would, twelve a video."""
    numbers = np.arange(len(vectors))
    uris = [f"file:///archive/{batch}/{video:05d}.mp4" for video in range(-(-len(vectors) // MOMENTS_PER_VIDEO))]
    ids = np.array([schema.video_id(uri) for uri in uris])
    start_s = 10.0 * (numbers % MOMENTS_PER_VIDEO)
    moments = {
        "segment_id": [
            schema.segment_id(uris[n // MOMENTS_PER_VIDEO], s) for n, s in zip(numbers, start_s, strict=True)
        ],
        "video_id": ids[numbers // MOMENTS_PER_VIDEO],
        "batch_id": [batch] * len(vectors),
        "start_s": start_s,
        "end_s": start_s + 10,
        "embedding": list(vectors),
        "num_frames": np.ones(len(vectors), np.int64),
        "frame_features": [b"\0\0"] * len(vectors),
    }
    videos = {
        "video_id": ids,
        "uri": uris,
        "status": [schema.INDEXED] * len(uris),
        "batch_id": [batch] * len(uris),
        "size_bytes": [0] * len(uris),
        "mtime_ns": [0] * len(uris),
        "num_segments": np.bincount(numbers // MOMENTS_PER_VIDEO),
        "num_frames": [MOMENTS_PER_VIDEO] * len(uris),
        "duration_s": np.full(len(uris), 120.0),
        "partial": [False] * len(uris),
        "attempts": [1] * len(uris),
        "indexed_at": [0] * len(uris),
    }
    file = write_segment_file(store.segments.folder, _table(moments, schema.SEGMENTS))
    store.commit(_table(videos, schema.VIDEOS), [file])


def _table(values: dict[str, Any], kind: pa.Schema) -> pa.Table:
    count = len(next(iter(values.values())))
    arrays = [
        pa.array(values[field.name]).cast(field.type) if field.name in values else pa.nulls(count, field.type)
        for field in kind
    ]
    return pa.table(arrays, schema=kind)
