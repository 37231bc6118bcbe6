"""Plain Parquet for everybody else: one row a moment, joined with the facts of its video."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from indexer import schema
from indexer.storage import Location
from indexer.store.index import IndexStore
from indexer.store.outfile import whole_file

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


def export_moments(store: IndexStore, out: str | Location) -> int:
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
    with whole_file(out, "the export", "moments.parquet") as path:
        snapshot = store.snapshot()
        videos = snapshot.videos.rename_columns(
            ["video" if name == "uri" else name for name in snapshot.videos.column_names]
        )
        with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
            for rows, segments in snapshot.read_file_by_file(_SEGMENT_COLUMNS):
                facts = videos.take(pa.array(snapshot.rows.video_rows[rows]))
                columns = [(facts if name in facts.column_names else segments)[name] for name in SCHEMA.names]
                writer.write_table(pa.table(columns, names=SCHEMA.names).cast(SCHEMA))
    return snapshot.num_segments
