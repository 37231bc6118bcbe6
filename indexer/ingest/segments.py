"""Cut a video into moments: fixed windows over the frames that were sampled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One moment, [start_s, end_s) in seconds.

    Attributes:
        frames: which of the sampled frames lie in it, as a slice into their sequence; never empty.
    """

    start_s: float
    end_s: float
    frames: slice


def cut_segments(target_times_s: Sequence[float], duration_s: float, segment_length_s: float) -> list[Segment]:
    """Cuts at 0, L, 2L, ... and keeps the windows [iL, (i+1)L) that hold a sampled frame.

    Args:
        target_times_s: `SampledFrame.target_s` of every sampled frame, not decreasing, 0 or more.
        duration_s: end of the last frame; the last window ends there if that is before the grid's own end.
        segment_length_s: L, above 0.

    Returns:
        Segments in order of time, each 0 < end_s - start_s <= L. Every frame is in exactly one.

    Raises:
        ValueError: for a length that is not above 0, or times that decrease or are negative.
    """
    if not segment_length_s > 0:
        raise ValueError(f"the segment length must be above 0 s, got {segment_length_s!r}")
    if any(later < earlier for earlier, later in pairwise(target_times_s)) or (
        target_times_s and target_times_s[0] < 0
    ):
        raise ValueError("the frame times must be 0 or more and in order of time")
    segments: list[Segment] = []
    first = 0
    while first < len(target_times_s):
        window = window_of(target_times_s[first], segment_length_s)
        end_s = (window + 1) * segment_length_s
        last = first + 1
        while last < len(target_times_s) and target_times_s[last] < end_s:
            last += 1
        start_s = window * segment_length_s
        if last == len(target_times_s) and start_s < duration_s < end_s:
            end_s = max(duration_s, math.nextafter(target_times_s[last - 1], math.inf))
        segments.append(Segment(start_s=start_s, end_s=end_s, frames=slice(first, last)))
        first = last
    return segments


def window_of(time_s: float, length_s: float) -> int:
    """The i with iL <= time < (i+1)L, in the very floats that the segment will carry."""
    window = int(time_s / length_s)
    while window * length_s > time_s:
        window -= 1
    while (window + 1) * length_s <= time_s:
        window += 1
    return window
