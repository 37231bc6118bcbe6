"""Plain Parquet for everybody else: one row a moment, joined with the facts of its video."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from indexer import schema
from indexer.errors import StorageError, UsageError
from indexer.store.index import IndexStore

_SEGMENT_COLUMNS = ["segment_id", "start_s", "end_s", "labels", "transcript", "embedding", "num_frames", "thumbnail"]
_VIDEO_COLUMNS = [
    "duration_s",
    "width",
    "height",
    "fps",
    "rotation_deg",
    "container",
    "video_codec",
    "has_audio",
    "title",
    "partial",
    "fingerprint",
    "indexed_at",
]

SCHEMA = pa.schema(
    [
        schema.VIDEOS.field("uri").with_name("video"),
        *(schema.SEGMENTS.field(name) for name in _SEGMENT_COLUMNS),
        *(schema.VIDEOS.field(name) for name in _VIDEO_COLUMNS),
    ]
)


def export_moments(store: IndexStore, out: str | Path) -> int:
    """Writes all visible moments as one Parquet file, whole or not at all.

    Args:
        store: the index.
        out: the file to write; one that exists is replaced when the new one is complete.

    Returns:
        Number of moments written.

    Raises:
        UsageError: `out` is a folder.
        StorageError: it could not be written.
    """
    out = Path(out)
    if out.is_dir():
        raise UsageError(
            f"{str(out)!r} is a folder: name a file to write, for example {str(out / 'moments.parquet')!r}"
        )
    snapshot = store.snapshot()
    videos = snapshot.videos.rename_columns(
        ["video" if name == "uri" else name for name in snapshot.videos.column_names]
    )
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        with pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as writer:
            for rows, segments in snapshot.read_file_by_file(_SEGMENT_COLUMNS):
                facts = videos.take(pa.array(snapshot.rows.video_rows[rows]))
                columns = [(facts if name in facts.column_names else segments)[name] for name in SCHEMA.names]
                writer.write_table(pa.table(columns, names=SCHEMA.names).cast(SCHEMA))
        os.replace(temporary, out)
    except OSError as error:
        raise StorageError(f"the export cannot be written to {str(out)!r}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return snapshot.num_segments
