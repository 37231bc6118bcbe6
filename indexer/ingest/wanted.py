"""Which frames of a video are wanted, as arguments of everything that reads one."""

from __future__ import annotations

from typing import Required, TypedDict

from indexer.ingest.leeway import Leeway


class WantedFrames(TypedDict, total=False):
    """See `video.read_video`, which also says what holds where something is left out."""

    frame_rate_hz: Required[float]
    size_px: Required[int]
    start_s: float
    end_s: float | None
    leeway: Leeway
    moment_s: float | None
