"""Which frame each target of the sampling grid takes, from the packets' times alone. Pure arithmetic, no decoding.

A target takes the frame that is shown at its time, or a key frame that is near enough, which needs nothing but itself.
"""

from __future__ import annotations

import bisect
import math
from typing import Any

from indexer.ingest.coded import Coded, NotOrdinaryError
from indexer.ingest.leeway import Leeway
from indexer.ingest.segments import window_of
from indexer.ingest.timeline import MAX_HOLD_S, SamplingGrid

_FEW = 32  # times that are kept at least; a decoder reorders at most 16 frames


class FrameChoice:
    """Is shown all packets in decoding order, and gives pairs of a chosen frame's time and the target that it serves.

    Args:
        grid: the targets.
        leeway: which frames may be taken in place of the one shown at a target.
        moment_s: moments are [0, L), [L, 2L), ... seconds; None: all is one moment.

    `push` and `finish` raise NotOrdinaryError where times are out of order, or a jump went past what a target needs.
    """

    def __init__(self, grid: SamplingGrid, leeway: Leeway, moment_s: float | None) -> None:
        self._grid = grid
        self._tolerance_s, self._earlier_s = leeway.key_frame_s, leeway.earlier_s
        self._ahead_s = self._tolerance_s + (grid.period_s if self._earlier_s else 0.0)
        self._moment_s = moment_s if leeway.within_moment else None
        self._has_ended = False
        self._taken_s = -math.inf  # the frame of the target before
        self._next = 0
        self._considered = -1  # a target of which it is known whether it is worth a jump
        self._met_target = False
        self._num_pushed = 0
        self._from_start = True
        self._forget_all()

    @property
    def is_done(self) -> bool:
        """Whether the range is behind, and every target in it has its frame."""
        return self._grid.is_past(self._last_decode_s) and self._grid.is_past(self._next_wanted_s)

    @property
    def num_decided(self) -> int:
        """How many targets of the whole grid have been decided, those without a frame included."""
        return self._next

    @property
    def floor_is_settled(self) -> bool:
        """Whether `floor_s` stays as it is until one more target is decided."""
        return self._last_decode_s > self._next_wanted_s

    @property
    def undecided_s(self) -> float:
        """Every target before this has been decided."""
        return min(self._last_decode_s, self._grid.time_s(self._next))

    @property
    def _next_wanted_s(self) -> float:
        return self._grid.time_s(max(self._next, self._grid.first_index))

    def worth_jumping_to(self, min_gap_s: float) -> float | None:
        """The next target, seconds, if it is so far away that the packets before it had better not be read at all.

        Of each target only the first answer counts: it does not get farther away.
        """
        if self._considered == self._next:
            return None
        self._considered = self._next
        position_s = max(0.0, self._last_decode_s)
        video_has_targets = self._met_target or self._grid.first_index > 0
        is_far = self._next_wanted_s - self._tolerance_s - position_s > min_gap_s
        return self._next_wanted_s if video_has_targets and is_far else None

    def jump(self) -> None:
        """The packets up to the next target are left out."""
        self._next = max(self._next, self._grid.first_index)
        self._from_start, self._met_target = False, True
        self._forget_all()

    def push(self, coded: Coded[Any]) -> list[tuple[float, float]]:
        """What can be chosen now."""
        position = bisect.bisect_right(self._times, coded.time_s)
        self._check(coded, position)
        self._last_decode_s = coded.decode_s
        if coded.is_key:
            self._last_key_s = coded.time_s
        if coded.is_shown:
            self._note_time(coded, position)
        self._num_pushed += 1
        chosen: list[tuple[float, float]] = []
        while self._is_decidable(self._grid.time_s(self._next)):
            chosen += self._decide()
        return chosen

    def finish(self) -> list[tuple[float, float]]:
        """What remains when the packets have ended. A video too short for any target gives its last frame."""
        self._has_ended = True
        if not (last := self._last_shown):
            return []
        chosen = []
        while self._grid.time_s(self._next) < last.time_s + min(last.period_s, MAX_HOLD_S):
            chosen += self._decide()
        if not self._met_target and self._grid.holds(last.time_s):
            chosen.append((last.time_s, last.time_s))
        return chosen

    def floor_s(self) -> float:
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

    def forget_before(self, floor_s: float) -> None:
        """Keeps few times before what `floor_s` gave."""
        if len(self._times) > 2 * _FEW:
            num_past = min(bisect.bisect_left(self._times, floor_s), len(self._times) - _FEW)
            del self._times[:num_past], self._orders[:num_past]
        if len(self._key_times) > 2 * _FEW:
            del self._key_times[: min(bisect.bisect_left(self._key_times, floor_s), len(self._key_times) - _FEW)]

    def _forget_all(self) -> None:
        self._times: list[float] = []  # of the frames that may still be chosen, or are the last one; sorted
        self._orders: list[int] = []  # of each of them: how many packets came before
        self._key_times: list[float] = []  # those of key frames
        self._last_shown: Coded[Any] | None = None
        self._last_decode_s = self._last_key_s = -math.inf

    def _check(self, coded: Coded[Any], position: int) -> None:
        """Position: where its time belongs among `_times`."""
        in_order = coded.decode_s >= self._last_decode_s and coded.time_s >= coded.decode_s
        is_known = position > 0 and self._times[position - 1] == coded.time_s
        if not in_order or is_known or (coded.is_key and coded.time_s <= self._last_key_s):
            raise NotOrdinaryError("the timestamps are out of order")

    def _note_time(self, coded: Coded[Any], position: int) -> None:
        self._times.insert(position, coded.time_s)
        self._orders.insert(position, self._num_pushed)
        if coded.is_key:
            self._key_times.append(coded.time_s)
        if self._last_shown is None or coded.time_s > self._last_shown.time_s:
            self._last_shown = coded

    def _is_decidable(self, target_s: float) -> bool:
        if self._last_decode_s <= target_s:
            return False
        return self._last_decode_s > target_s + self._ahead_s or self._last_key_s > target_s

    def _decide(self) -> list[tuple[float, float]]:
        """Chooses the frame of the next target, if that has one and is asked for."""
        target_s = self._grid.time_s(self._next)
        self._next += 1
        position = bisect.bisect_right(self._times, target_s) - 1
        if position < 0:
            if not self._from_start:
                raise NotOrdinaryError("the search for a key frame went too far")
            return []
        shown_s = self._times[position]
        if target_s >= shown_s + MAX_HOLD_S:
            return []
        self._met_target = True
        if not self._grid.holds(target_s):
            return []
        key_s = self._near_key(target_s)
        spares = key_s is not None and self._spares_decoding(key_s, target_s, shown_s)
        self._taken_s = key_s if key_s is not None and spares else self._early_enough(target_s, position)
        return [(self._taken_s, target_s)]

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
        nearby = range(bisect.bisect_left(self._times, start_s), position + 1)
        return self._times[min(nearby, key=self._orders.__getitem__, default=position)]

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

    def _before(self, floor_s: float, earliest_s: float) -> float:
        """The frame shown at `earliest_s` if that is before `floor_s`."""
        first = max(0, bisect.bisect_right(self._times, earliest_s) - 1)
        return min(floor_s, self._times[first]) if self._times else floor_s
