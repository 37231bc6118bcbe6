"""Which packets of a video must be decoded to get the frames that are wanted. Pure arithmetic, no decoding.

    packets, in decoding order → NeededPackets → the few that are decoded, each with the targets that its frame serves

A frame needs all packets since the last key frame before it, and nothing before that. So groups of pictures without a
target are left out, and so is the rest of a group after its last wanted frame. A target takes the frame that is shown
at its time, or a key frame that is near enough, which needs nothing but itself.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.segments import window_of
from indexer.ingest.timeline import MAX_HOLD_S, SamplingGrid

P = TypeVar("P")

MAX_HELD_BYTES = 64 << 20  # of packets that are held back because a later one may make them unnecessary
_MOST_HELD_BYTES = 512 << 20
_FEW = 32  # times that are kept at least; a decoder reorders at most 16 frames


class NotOrdinaryError(Exception):
    """The packets are not as in every well-made file: only decoding all of them can tell what is shown when."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coded(Generic[P]):
    """A packet.

    Attributes:
        time_s: when its frame is shown, seconds of the video's timeline.
        decode_s: when it is decoded; no packet that follows is shown before that. Minus infinity if that is not known.
        period_s: how long the frame lasts if no other follows.
        is_key: decoding may start here; frames shown after this one need nothing that comes before it.
        is_shown: not marked as there for the decoder only.
    """

    time_s: float
    decode_s: float
    period_s: float
    is_key: bool
    is_shown: bool
    num_bytes: int
    packet: P


@dataclass(slots=True, kw_only=True, eq=False)
class Step(Generic[P]):
    """Decode this packet next.

    Attributes:
        restart: empty the decoder first; packets have been left out.
        targets: what its frame serves, seconds; empty if it is decoded only because others refer to it.
        is_leading: its frame is shown before the key frame that decoding started with, and may refer to what was left
            out: whatever becomes of it does not matter.
    """

    coded: Coded[P]
    restart: bool = False
    targets: list[float] = field(default_factory=list)
    is_leading: bool = False


class NeededPackets(Generic[P]):
    """Takes all packets in decoding order and gives those to be decoded, in the same order.

    The first key frame of the video is always among them: it shows what the video looks like.

    Args:
        grid: the targets.
        leeway: which frames may be taken in place of the one shown at a target.

    Every method raises NotOrdinaryError where the packets are out of order or decoding would have to start without a
    key frame.
    """

    def __init__(self, grid: SamplingGrid, leeway: Leeway = EXACTLY) -> None:
        self._grid = grid
        self._tolerance_s, self._earlier_s = leeway.key_frame_s, leeway.earlier_s
        self._moment_s = leeway.moment_s
        self._has_ended = False
        self._taken_s = -math.inf  # the frame of the target before
        self._next = 0
        self._met_target = False
        self._num_given = 0
        self._num_pushed = 0
        self._from_start = True
        self._wanted: dict[float, list[float]] = {}  # frames chosen and not given yet, by time → targets
        self._forget_all()

    @property
    def is_done(self) -> bool:
        """Whether the range is behind, and every target in it has its frame."""
        return self._grid.is_past(self._last_decode_s) and self._grid.is_past(self._next_wanted_s)

    @property
    def _next_wanted_s(self) -> float:
        return self._grid.time_s(max(self._next, self._grid.first_index))

    def worth_jumping_to(self, min_gap_s: float) -> float | None:
        """The next target, seconds, if it is so far away that the packets before it had better not be read at all."""
        position_s = max(0.0, self._last_decode_s)
        video_has_targets = self._met_target or self._grid.first_index > 0
        is_far = self._next_wanted_s - self._tolerance_s - position_s > min_gap_s
        return self._next_wanted_s if video_has_targets and is_far else None

    def jump(self) -> list[Step[P]]:
        """What is to be decoded before packets are left out. The next one pushed must not be shown later than the key
        frame before the next target."""
        steps = self._release(math.inf)
        self._next = max(self._next, self._grid.first_index)
        self._from_start, self._met_target = False, True
        self._forget_all()
        return steps

    def push(self, coded: Coded[P]) -> list[Step[P]]:
        """What is now known to be needed, and not given yet."""
        self._hold(coded)
        while self._is_decidable(self._grid.time_s(self._next)):
            self._decide()
        floor_s = self._floor_s()
        steps = self._release(floor_s)
        self._forget_groups_without_target()
        self._forget_times_before(floor_s)
        if self._held_bytes > MAX_HELD_BYTES:
            steps += self._release_all_before(floor_s)
        return steps

    def finish(self) -> list[Step[P]]:
        """What remains when the packets have ended, be it those of the video or of the range.

        A video too short for any target gives its last frame. A range without targets gives one frame all the same,
        for nothing.
        """
        self._has_ended = True
        if last := self._last_shown:
            while self._grid.time_s(self._next) < last.time_s + min(last.period_s, MAX_HOLD_S):
                self._decide()
            if not self._met_target and self._grid.holds(last.time_s):
                self._wanted.setdefault(last.time_s, []).append(last.time_s)
        if not self._num_given and not self._wanted and self._keys:
            self._wanted[self._keys[0].time_s] = []
        return self._release(math.inf)

    def _forget_all(self) -> None:
        self._held: list[Coded[P]] = []  # neither given nor known to be unnecessary; in decoding order
        self._held_bytes = 0
        self._keys: list[Coded[P]] = []  # those of them that are key frames
        self._numbers: dict[float, int] = {}  # by time: how many packets had been pushed before
        self._times: list[float] = []  # of the frames that may still be chosen, or are the last one; sorted
        self._key_times: list[float] = []  # those of key frames
        self._last_shown: Coded[P] | None = None
        self._follows = False  # the first of `_held` comes right after the last that was given
        self._began_s = self._last_decode_s = self._last_key_s = -math.inf

    def _hold(self, coded: Coded[P]) -> None:
        in_order = coded.decode_s >= self._last_decode_s and coded.time_s >= coded.decode_s
        is_known = coded.time_s in self._numbers or coded.time_s in self._times[-_FEW:]
        if not in_order or is_known or (coded.is_key and coded.time_s <= self._last_key_s):
            raise NotOrdinaryError("the timestamps are out of order")
        self._last_decode_s = coded.decode_s
        self._held.append(coded)
        self._held_bytes += coded.num_bytes
        self._numbers[coded.time_s] = self._num_pushed
        self._num_pushed += 1
        if coded.is_key:
            self._keys.append(coded)
            self._last_key_s = coded.time_s
            if self._from_start and self._num_pushed == 1:
                self._wanted[coded.time_s] = []
        if coded.is_shown:
            bisect.insort(self._times, coded.time_s)
            if coded.is_key:
                self._key_times.append(coded.time_s)
            if self._last_shown is None or coded.time_s > self._last_shown.time_s:
                self._last_shown = coded

    def _is_decidable(self, target_s: float) -> bool:
        if self._last_decode_s <= target_s:
            return False
        ahead_s = self._tolerance_s + (self._grid.period_s if self._earlier_s else 0.0)
        return self._last_decode_s > target_s + ahead_s or self._last_key_s > target_s

    def _decide(self) -> None:
        """Chooses the frame of the next target."""
        target_s = self._grid.time_s(self._next)
        self._next += 1
        position = bisect.bisect_right(self._times, target_s) - 1
        if position < 0:
            if not self._from_start:
                raise NotOrdinaryError("the search for a key frame went too far")
            return
        shown_s = self._times[position]
        if target_s >= shown_s + MAX_HOLD_S:
            return
        self._met_target = True
        if self._grid.holds(target_s):
            key_s = self._near_key(target_s)
            spares = key_s is not None and self._spares_decoding(key_s, target_s, shown_s)
            chosen_s = key_s if key_s is not None and spares else self._early_enough(target_s, position)
            self._wanted.setdefault(chosen_s, []).append(target_s)
            self._taken_s = chosen_s

    def _near_key(self, target_s: float) -> float | None:
        """The key frame nearest to the target, of those in [target - tolerance, target + tolerance) and its moment."""
        start_s, end_s = self._within_moment(target_s, target_s - self._tolerance_s, target_s + self._tolerance_s)
        first = bisect.bisect_left(self._key_times, start_s)
        end = bisect.bisect_left(self._key_times, end_s)
        return min(self._key_times[first:end], key=lambda time_s: abs(time_s - target_s), default=None)

    def _spares_decoding(self, key_s: float, target_s: float, shown_s: float) -> bool:
        """Whether taking the key frame is cheaper than the frame shown. If it is behind, and the next target needs its
        group decoded anyway, only where it has been taken before; else a fade-in's first frame would stand for it."""
        is_ahead = key_s > shown_s or not self._earlier_s
        return is_ahead or key_s == self._taken_s or self._is_last_of_group(target_s, shown_s)

    def _early_enough(self, target_s: float, position: int) -> float:
        """Which frame a target far from key frames takes; the one at `position` is shown then."""
        shown_s = self._times[position]
        if not self._earlier_s or not self._is_last_of_group(target_s, shown_s):
            return shown_s
        earliest = max(0, bisect.bisect_right(self._times, target_s - self._earlier_s) - 1)
        start_s, _ = self._within_moment(target_s, self._times[earliest], target_s)
        last_key = bisect.bisect_right(self._key_times, shown_s) - 1
        if last_key >= 0:
            start_s = max(start_s, self._key_times[last_key])
        if start_s <= self._taken_s <= shown_s:
            return self._taken_s
        nearby = self._times[bisect.bisect_left(self._times, start_s) : position + 1]
        return min(nearby, key=self._numbers.__getitem__, default=shown_s)

    def _is_last_of_group(self, target_s: float, shown_s: float) -> bool:
        """Whether the next target takes a key frame that is not decoded yet, or there is none."""
        next_s = target_s + self._grid.period_s
        key = bisect.bisect_right(self._key_times, shown_s)
        if key < len(self._key_times):
            start_s, end_s = self._within_moment(next_s, next_s - self._tolerance_s, next_s + self._tolerance_s)
            return start_s <= self._key_times[key] < end_s or self._key_times[key] <= next_s
        last = self._last_shown
        return self._has_ended and last is not None and next_s >= last.time_s + min(last.period_s, MAX_HOLD_S)

    def _within_moment(self, target_s: float, start_s: float, end_s: float) -> tuple[float, float]:
        if self._moment_s is None:
            return start_s, end_s
        window = window_of(target_s, self._moment_s)
        return max(start_s, window * self._moment_s), min(end_s, (window + 1) * self._moment_s)

    def _floor_s(self) -> float:
        """No target still to be decided will choose a frame before this time."""
        target_s = self._next_wanted_s
        if self._grid.is_past(target_s):
            return math.inf
        until_s = min(self._last_decode_s, target_s)
        position = bisect.bisect_right(self._times, until_s) - 1
        if position < 0:
            return -math.inf
        floor_s = self._times[position]
        key = bisect.bisect_right(self._key_times, until_s) - 1
        if key >= 0 and self._key_times[key] >= target_s - self._tolerance_s:
            floor_s = min(floor_s, self._key_times[key])
        return self._before(floor_s, target_s - self._earlier_s) if self._earlier_s else floor_s

    def _before(self, floor_s: float, earliest_s: float) -> float:
        """The frame shown at `earliest_s` if that is before `floor_s`."""
        first = max(0, bisect.bisect_right(self._times, earliest_s) - 1)
        return min(floor_s, self._times[first]) if self._times else floor_s

    def _release(self, floor_s: float) -> list[Step[P]]:
        """Steps for the wanted frames, as far as it is known of every packet on the way whether it is wanted itself."""
        if not self._wanted or min(self._wanted) >= floor_s:
            return []
        num_known = next((i for i, coded in enumerate(self._held) if coded.time_s >= floor_s), len(self._held))
        steps: list[Step[P]] = []
        wanted = [coded for coded in self._held[:num_known] if coded.time_s in self._wanted]
        for i, coded in enumerate(wanted):
            steps += self._steps_to(coded, min(later.time_s for later in wanted[i:]))
        if floor_s == math.inf and self._wanted:
            raise NotOrdinaryError("a frame is wanted that was passed by")
        return steps

    def _steps_to(self, coded: Coded[P], earliest_s: float) -> list[Step[P]]:
        """What must be decoded for a frame, itself last; all of it, and all before, is no longer held.

        Args:
            earliest_s: time of the first frame shown among this one and those wanted after it. One that is decoded
                after a key frame and shown before it needs what comes before that key frame.
        """
        first = self._num_pushed - len(self._held)
        end = self._numbers[coded.time_s] - first + 1
        starts = [self._numbers[key.time_s] - first for key in self._keys if key.time_s <= earliest_s]
        starts = [start for start in starts if start < end]
        if not starts and not self._follows:
            raise NotOrdinaryError("a frame has no key frame before it")
        return self._cut(starts[-1] if starts else 0, end)

    def _cut(self, start: int, end: int) -> list[Step[P]]:
        """Steps for `_held[start:end]`."""
        restart = not (self._follows and start == 0)
        if restart:
            self._began_s = self._held[start].time_s
        steps = [
            Step(coded=coded, targets=self._wanted.pop(coded.time_s, []), is_leading=coded.time_s < self._began_s)
            for coded in self._held[start:end]
        ]
        steps[0].restart = restart
        self._num_given += len(steps)
        self._drop(end)
        self._follows = True
        return steps

    def _drop(self, end: int) -> None:
        for coded in self._held[:end]:
            self._held_bytes -= coded.num_bytes
            del self._numbers[coded.time_s]
        del self._held[:end]
        self._keys = [key for key in self._keys if key.time_s in self._numbers]

    def _forget_groups_without_target(self) -> None:
        """Drops what comes before the last key frame from which every frame still to be chosen can be decoded."""
        until_s = min(self._last_decode_s, self._grid.time_s(self._next), *self._wanted)
        keys = [key for key in self._keys if key.time_s <= until_s]
        if not keys or keys[-1] is self._held[0]:
            return
        self._drop(self._numbers[keys[-1].time_s] - (self._num_pushed - len(self._held)))
        self._follows = False

    def _forget_times_before(self, floor_s: float) -> None:
        if len(self._times) > 2 * _FEW:
            del self._times[: min(bisect.bisect_left(self._times, floor_s), len(self._times) - _FEW)]
        if len(self._key_times) > 2 * _FEW:
            del self._key_times[: min(bisect.bisect_left(self._key_times, floor_s), len(self._key_times) - _FEW)]

    def _release_all_before(self, floor_s: float) -> list[Step[P]]:
        """Steps for everything of which it is known whether it is wanted, so that it is held no longer."""
        num_known = next((i for i, coded in enumerate(self._held) if coded.time_s >= floor_s), 0)
        if num_known and (self._follows or self._held[0].is_key):
            return self._cut(0, num_known)
        if self._held_bytes > _MOST_HELD_BYTES:
            raise NotOrdinaryError("too much between two key frames")
        return []
