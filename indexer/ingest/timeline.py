"""When each decoded frame is shown, and which frames the sampling grid wants. Pure arithmetic, no decoding.

Times are seconds from the start of the file's timeline (the container's start time), as players show them. Frame i is
shown during the half-open span [t_i, t_{i+1}). The grid at `rate` Hz looks at t_k = (k + 0.5) / rate, k = 0, 1, ...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

F = TypeVar("F")

MAX_HOLD_S = 60.0  # a jump of hours in damaged timestamps must not become thousands of copies of one frame
JUMP_BACK_S = 1.0  # B-frames out of order differ by less; anything further back is another timeline, or damage
REORDER_DEPTH = 2  # frames held back to be sorted
FALLBACK_PERIOD_S = 0.04  # when a file says nothing of its frame rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed(Generic[F]):
    """A frame that starts to be shown at `time_s`; `period_s` is how long it lasts if no other follows."""

    time_s: float
    period_s: float
    frame: F


class TimestampGuess:
    """Chooses between a frame's PTS and its packet's DTS, in ticks: whichever went backwards less often so far.

    Source: FFmpeg's best-effort timestamp (`guess_correct_pts`), which PyAV does not expose.
    """

    def __init__(self) -> None:
        self._last: list[int | None] = [None, None]
        self._num_faulty = [0, 0]

    def choose(self, pts: int | None, dts: int | None) -> int | None:
        for i, stamp in enumerate((pts, dts)):
            last = self._last[i]
            if stamp is not None:
                self._num_faulty[i] += last is not None and stamp <= last
                self._last[i] = stamp
        if pts is not None and (dts is None or self._num_faulty[0] <= self._num_faulty[1]):
            return pts
        return dts


class Timeline(Generic[F]):
    """Puts decoded frames in order of time and mends timestamps that are missing, repeated or from another timeline.

    Rules: a frame without a timestamp follows the one before it by that one's period. Frames are sorted over a window
    of `REORDER_DEPTH`; one that still comes too late is dropped. A single frame far ahead of its neighbours is damage
    and is dropped. A lasting jump back (files glued together) goes on from where the timeline was.
    """

    def __init__(self) -> None:
        self._held: list[Timed[F]] = []
        self._released_s: float | None = None
        self._shift_s = 0.0
        self.num_dropped = 0
        self.num_restarts = 0

    def push(self, time_s: float | None, period_s: float, frame: F) -> Iterator[Timed[F]]:
        """Takes one frame in decoding order; yields those whose place is now certain, in order of time."""
        placed = self._place(time_s, period_s)
        if self._released_s is not None and placed < self._released_s:
            self.num_dropped += 1
            return
        self._held.append(Timed(time_s=placed, period_s=period_s, frame=frame))
        self._held.sort(key=lambda held: held.time_s)
        if len(self._held) > REORDER_DEPTH:
            yield self._release()

    def finish(self) -> Iterator[Timed[F]]:
        while self._held:
            yield self._release()

    def describe(self) -> str | None:
        """What was mended beyond the harmless, one line, or None."""
        times = "1 time" if self.num_restarts == 1 else f"{self.num_restarts} times"
        return f"the timestamps start again {times}" if self.num_restarts else None

    def _release(self) -> Timed[F]:
        first = self._held.pop(0)
        self._released_s = first.time_s
        return first

    def _place(self, time_s: float | None, period_s: float) -> float:
        expected_s = self._held[-1].time_s + self._held[-1].period_s if self._held else 0.0
        if time_s is None:
            return expected_s
        placed = max(0.0, time_s + self._shift_s)
        if self._held and self._held[-1].time_s - placed > JUMP_BACK_S:
            before_s = self._held[-2].time_s if len(self._held) > 1 else self._released_s
            if before_s is None or placed >= before_s:
                self._held.pop()
                self.num_dropped += 1
            else:
                self._shift_s += expected_s - placed
                self.num_restarts += 1
                return expected_s
        return placed


def shown_spans(frames: Iterable[Timed[F]]) -> Iterator[tuple[Timed[F], float]]:
    """Pairs each frame (in order of time) with the end of its span in seconds: the next frame's time, or its own period
    for the last one; never more than `MAX_HOLD_S` after its start."""
    current: Timed[F] | None = None
    for following in frames:
        if current is not None:
            yield current, min(following.time_s, current.time_s + MAX_HOLD_S)
        current = following
    if current is not None:
        yield current, current.time_s + min(current.period_s, MAX_HOLD_S)


class SamplingGrid:
    """The targets t_k = (k + 0.5) / rate that lie in [start_s, end_s). Every target falls in at most one span of the
    video, whatever the rounding. `end_s` None means without end.

    Attributes:
        has_met_target: whether any span asked for held a target of the whole grid, inside the range or not.
        first_index: k of the first target in the range.
        period_s: from one target to the next.
    """

    def __init__(self, frame_rate_hz: float, *, start_s: float = 0.0, end_s: float | None = None) -> None:
        self.has_met_target = False
        self._rate_hz = frame_rate_hz
        self.period_s = 1 / frame_rate_hz
        self._start_s = start_s
        self._end_s = math.inf if end_s is None else end_s
        self._next = 0
        self.first_index = self._index_at(start_s)

    def time_s(self, index: int) -> float:
        return (index + 0.5) / self._rate_hz

    def within(self, start_s: float, end_s: float) -> list[float]:
        """Targets of the grid in [start_s, end_s), seconds. Spans must be asked for in order of time."""
        first = self._next = max(self._next, self._index_at(start_s))
        while self.time_s(self._next) < end_s:
            self._next += 1
        self.has_met_target = self.has_met_target or self._next > first
        return [time_s for time_s in map(self.time_s, range(first, self._next)) if self.holds(time_s)]

    def _index_at(self, time_s: float) -> int:
        """k of the first target at or after this time."""
        index = max(0, math.floor(time_s * self._rate_hz - 0.5) - 1)
        while self.time_s(index) < time_s:
            index += 1
        return index

    def holds(self, time_s: float) -> bool:
        return self._start_s <= time_s < self._end_s

    def is_past(self, time_s: float) -> bool:
        """Whether the range ends at or before this time."""
        return time_s >= self._end_s


def plausible_period_s(frames_per_second: float | None) -> float:
    """Seconds a frame at the stated rate; rates outside 0.05 to 1000 Hz (broken headers) give `FALLBACK_PERIOD_S`."""
    if frames_per_second is None or not 0.05 <= frames_per_second <= 1000:
        return FALLBACK_PERIOD_S
    return 1.0 / frames_per_second
