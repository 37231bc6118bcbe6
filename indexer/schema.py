"""Every column of the two tables: name, Arrow type, unit and meaning. The one place where they are documented.

`videos/` is the ledger, one row a video. `segments/` has one row a moment; a row counts only while the ledger
holds its `(video_id, batch_id)` with status "indexed". Reading an index from outside is therefore one join.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

INDEXED = "indexed"
FAILED = "failed"


def _column(name: str, type_: pa.DataType, meaning: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"meaning": meaning})


VIDEOS = pa.schema(
    [
        _column("video_id", pa.int64(), "stable 63-bit hash of `uri`", nullable=False),
        _column("uri", pa.string(), "absolute path or URI of the video", nullable=False),
        _column("status", pa.string(), '"indexed" or "failed"', nullable=False),
        _column("batch_id", pa.string(), "batch whose segments are this video's; empty when failed", nullable=False),
        _column(
            "fingerprint",
            pa.string(),
            "hash of the file's bytes, as `blake2b:HEX`; of an object `etag:ETAG:SIZE`; null if unreadable",
        ),
        _column("size_bytes", pa.int64(), "size of the file when it was listed, bytes", nullable=False),
        _column("mtime_ns", pa.int64(), "modification time when it was listed, ns since 1970", nullable=False),
        _column("num_segments", pa.int32(), "moments in `segments/`", nullable=False),
        _column("num_frames", pa.int32(), "frames that were looked at", nullable=False),
        _column("duration_s", pa.float64(), "measured length of the picture, seconds: end of the last frame decoded"),
        _column("width", pa.int32(), "display width after rotation, pixels"),
        _column("height", pa.int32(), "display height after rotation, pixels"),
        _column("fps", pa.float64(), "average frame rate that the container states, frames per second"),
        _column("rotation_deg", pa.int32(), "clockwise rotation that was applied: 0, 90, 180 or 270 degrees"),
        _column("container", pa.string(), "container format, FFmpeg's name"),
        _column("video_codec", pa.string(), "codec of the picture, FFmpeg's name"),
        _column("has_audio", pa.bool_(), "whether there is an audio stream"),
        _column("title", pa.string(), "title in the container's metadata"),
        _column(
            "partial", pa.bool_(), "the file could be read only in part; what was readable is indexed", nullable=False
        ),
        _column("warning", pa.string(), "what was wrong with a partial file, one line"),
        _column("error_stage", pa.string(), 'failed videos: "read", "open", "decode", "encode" or "write"'),
        _column("error_kind", pa.string(), "failed videos: short stable name of the reason"),
        _column("error_message", pa.string(), "failed videos: one line for people"),
        _column("attempts", pa.int32(), "runs that tried this version of the file", nullable=False),
        _column("indexed_at", pa.timestamp("us", tz="UTC"), "when this row was made", nullable=False),
        # Columns that older indexes do not have come last and are nullable.
        _column(
            "sampling_plan",
            pa.string(),
            'how the picture was decoded: "keyframes" (nothing but key frames), "sparse" (what the sampled frames '
            'needed) or "linear" (all of it)',
        ),
        _column("num_coded", pa.int64(), "frames in the file; null where that would have meant to read all of it"),
        _column("num_decoded", pa.int64(), "frames that were decoded"),
        _column(
            "num_encoded",
            pa.int64(),
            "frames that the model was shown; the other ones of `num_frames` took the features of one like them",
        ),
        _column(
            "subtitles",
            pa.string(),
            "the subtitle file beside the video that the transcripts are from: its name after the video's own, ETag or "
            'modification time, and size, as ".en.srt mtime_ns:NS bytes:SIZE"; "" if there was none; of rows of older '
            'versions "?" if there was one, else null',
        ),
        _column(
            "audio_language",
            pa.string(),
            "language that the container states for its sound or, if for none of that, its subtitles; as `language`",
        ),
        _column(
            "language",
            pa.string(),
            "language of what is said, a BCP 47 primary subtag such as `en`: from the name of the subtitle file, else "
            "detected in the transcript, else `audio_language`; null if not known",
        ),
    ]
)


def without_meanings(table_schema: pa.Schema) -> pa.Schema:
    """The schema as rows are written: Delta refuses rows whose descriptions are not word for word those of the table,
    which another version of this project may have made."""
    return pa.schema([field.remove_metadata() for field in table_schema])


LABELS_TYPE = pa.list_(pa.struct([pa.field("label", pa.string()), pa.field("score", pa.float32())]))

SEGMENTS = pa.schema(
    [
        _column("segment_id", pa.int64(), "stable 63-bit hash of (`uri`, start in milliseconds)", nullable=False),
        _column("video_id", pa.int64(), "the video in `videos/`", nullable=False),
        _column(
            "batch_id", pa.string(), "counts only if the ledger names the same batch for the video", nullable=False
        ),
        _column(
            "start_s", pa.float64(), "start, seconds from the start of the file's timeline, inclusive", nullable=False
        ),
        _column("end_s", pa.float64(), "end, seconds, exclusive", nullable=False),
        _column(
            "embedding", pa.list_(pa.float32()), "fused vector, length 1; its length is in index.json", nullable=False
        ),
        _column("labels", LABELS_TYPE, "ImageNet classes and their probabilities, highest first"),
        _column(
            "transcript", pa.string(), "what is said or written in the moment, from a subtitle file beside the video"
        ),
        _column("thumbnail", pa.binary(), "JPEG of the frame nearest the middle, longest side at most 320 px"),
        _column("num_frames", pa.int32(), "frames that were looked at", nullable=False),
        _column("frame_times_s", pa.list_(pa.float64()), "presentation time of each frame, seconds"),
        _column(
            "frame_features",
            pa.binary(),
            "float16, little-endian, C order, shape (num_frames, *feature_shape of index.json)",
        ),
    ]
)


def _hash63(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def video_id(uri: str) -> int:
    """Stable id of a video: 63-bit hash of its URI, so that it fits an int64 and is never negative."""
    return _hash63(uri)


def segment_id(uri: str, start_s: float) -> int:
    """Stable id of a moment: 63-bit hash of the URI and the start in whole milliseconds."""
    return _hash63(f"{uri}\0{round(start_s * 1000)}")
