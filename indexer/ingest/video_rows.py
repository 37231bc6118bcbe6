"""What the ledger says of one video: rows of `schema.VIDEOS`, and parts of them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

from indexer import schema
from indexer.ingest.sampled import SPARSE, DecodeEnd, VideoInfo

_VIDEO_FACTS = (
    "container",
    "video_codec",
    "width",
    "height",
    "fps",
    "rotation_deg",
    "has_audio",
    "title",
    "audio_language",
)


def empty_row(uri: str, *, size_bytes: int = 0, mtime_ns: int = 0, attempts: int = 1) -> dict[str, Any]:
    """A ledger row with nothing known yet but what was listed."""
    row: dict[str, Any] = dict.fromkeys(schema.VIDEOS.names)
    return row | {
        "video_id": schema.video_id(uri),
        "uri": uri,
        "batch_id": "",
        "size_bytes": size_bytes,
        "mtime_ns": mtime_ns,
        "num_segments": 0,
        "num_frames": 0,
        "partial": False,
        "attempts": attempts,
        "indexed_at": datetime.datetime.now(datetime.UTC),
    }


def changed_row(uri: str, attempts: int, *, is_gone: bool) -> dict[str, Any]:
    """The row of a file that was written to while it was read. Without its size and time: the next run tries again."""
    did = "deleted" if is_gone else "changed"
    message = f"the file was {did} while it was read; what was read is left out, the next run reads it anew"
    return empty_row(uri, attempts=attempts) | failure("read", "ChangedWhileRead", message)


def failure(stage: str, kind: str, message: str) -> dict[str, Any]:
    """What a failed video's ledger row says besides `empty_row`."""
    return {
        "status": schema.FAILED,
        "num_segments": 0,
        "num_frames": 0,
        "partial": False,
        **dict.fromkeys(("sampling_plan", "num_coded", "num_decoded", "num_encoded")),
        "error_stage": stage,
        "error_kind": kind,
        "error_message": message,
    }


def facts_of(item: VideoInfo | DecodeEnd) -> dict[str, Any]:
    """What the stream of a video says besides its frames."""
    if isinstance(item, VideoInfo):
        return {name: getattr(item, name) for name in _VIDEO_FACTS}
    return {
        "duration_s": item.duration_s,
        "partial": item.warning is not None,
        "warning": item.warning,
        "sampling_plan": item.plan,
        "num_coded": item.num_coded,
        "num_decoded": item.num_decoded,
    }


def joined_facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How a video was read, from the ledger rows of its parts."""
    plans = {row["sampling_plan"] for row in rows if row["num_frames"]}
    counts = {name: [row[name] for row in rows] for name in ("num_coded", "num_decoded", "num_encoded")}
    return {
        "sampling_plan": plans.pop() if len(plans) == 1 else SPARSE,
        **{name: None if None in values else sum(values) for name, values in counts.items()},
    }
