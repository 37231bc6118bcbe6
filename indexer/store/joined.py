"""Visible moments joined with the facts of their videos: what `export` writes, and what SQL sees as `moments`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from indexer import schema
from indexer.store.snapshot import Snapshot

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
    "language",
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


def joined_moments(snapshot: Snapshot, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """All visible moments, one stored file at a time.

    Args:
        columns: of `SCHEMA`, all if None; only these are read.
    """
    wanted = SCHEMA if columns is None else pa.schema([SCHEMA.field(name) for name in columns])
    videos = snapshot.videos.rename_columns(
        ["video" if name == "uri" else name for name in snapshot.videos.column_names]
    )
    of_segments = [name for name in wanted.names if name in _SEGMENT_COLUMNS]
    of_videos = videos.select([name for name in wanted.names if name not in _SEGMENT_COLUMNS])
    for rows, segments in snapshot.read_file_by_file(of_segments or ["segment_id"]):
        facts = of_videos.take(pa.array(snapshot.rows.video_rows[rows]))
        values = [(segments if name in of_segments else facts)[name] for name in wanted.names]
        yield pa.table(values, names=wanted.names).cast(wanted)
