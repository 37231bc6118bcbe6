"""Which packets of a video must be decoded to get the frames that are wanted. Pure arithmetic, no decoding.

    packets, in decoding order → NeededPackets → the few that are decoded, each with the targets that its frame serves

A frame needs all packets since the last key frame before it, and nothing before that. So groups of pictures without a
target are left out, and so is the rest of a group after its last wanted frame. Which frame a target takes:
`frame_choice.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Generic, TypeVar

from indexer.ingest.coded import Coded, NotOrdinaryError, Step
from indexer.ingest.frame_choice import FrameChoice
from indexer.ingest.leeway import EXACTLY, Leeway
from indexer.ingest.timeline import SamplingGrid

P = TypeVar("P")

MAX_HELD_BYTES = 64 << 20  # of packets that are held back because a later one may make them unnecessary
_MOST_HELD_BYTES = 512 << 20


class NeededPackets(Generic[P]):
    """Takes all packets in decoding order and gives those to be decoded, in the same order.

    The first key frame of the video is always among them: it shows what the video looks like.

    Args:
        grid: the targets.
        leeway: which frames may be taken in place of the one shown at a target.
        moment_s: moments are [0, L), [L, 2L), ... seconds; None: all is one moment.

    Every method raises NotOrdinaryError where the packets are out of order or decoding would have to start without a
    key frame.
    """

    def __init__(self, grid: SamplingGrid, leeway: Leeway = EXACTLY, moment_s: float | None = None) -> None:
        self._choice = FrameChoice(grid, leeway, moment_s)
        self._num_given = 0
        self._num_pushed = 0
        self._from_start = True
        self._wanted: dict[float, list[float]] = {}  # frames chosen and not given yet, by time → targets
        self._floor_s: float  # what no target still to be decided goes below, as of the last look
        self._settled: int  # how many targets had been decided then, if that stays so until one more is
        self._forget_all()

    @property
    def is_done(self) -> bool:
        """Whether the range is behind, and every target in it has its frame."""
        return self._choice.is_done

    def worth_jumping_to(self, min_gap_s: float) -> float | None:
        """The next target, seconds, if it is so far away that the packets before it had better not be read at all."""
        return self._choice.worth_jumping_to(min_gap_s)

    def jump(self) -> list[Step[P]]:
        """What is to be decoded before packets are left out. The next one pushed must not be shown later than the key
        frame before the next target."""
        steps = self._release(math.inf)
        self._choice.jump()
        self._from_start = False
        self._forget_all()
        return steps

    def push(self, coded: Coded[P]) -> list[Step[P]]:
        """What is now known to be needed, and not given yet."""
        if coded.time_s in self._numbers:
            raise NotOrdinaryError("the timestamps are out of order")
        self._want(self._choice.push(coded))
        self._hold(coded)
        steps: list[Step[P]] = []
        if coded.is_key or self._choice.num_decided != self._settled:
            self._floor_s = self._choice.floor_s()
            self._settled = self._choice.num_decided if self._choice.floor_is_settled else -1
            steps = self._release(self._floor_s)
            self._forget_groups_without_target()
            self._choice.forget_before(self._floor_s)
        if self._held_bytes > MAX_HELD_BYTES:
            steps += self._release_all_before(self._floor_s)
        return steps

    def finish(self) -> list[Step[P]]:
        """What remains when the packets have ended, be it those of the video or of the range.

        A video too short for any target gives its last frame. A range without targets gives one frame all the same,
        for nothing.
        """
        self._want(self._choice.finish())
        if not self._num_given and not self._wanted and self._keys:
            self._wanted[self._keys[0].time_s] = []
        return self._release(math.inf)

    def _forget_all(self) -> None:
        self._held: list[Coded[P]] = []  # neither given nor known to be unnecessary; in decoding order
        self._held_bytes = 0
        self._keys: list[Coded[P]] = []  # those of them that are key frames
        self._numbers: dict[float, int] = {}  # by time: how many packets had been pushed before
        self._follows = False  # the first of `_held` comes right after the last that was given
        self._began_s = -math.inf
        self._floor_s, self._settled = -math.inf, -1

    def _hold(self, coded: Coded[P]) -> None:
        self._held.append(coded)
        self._held_bytes += coded.num_bytes
        self._numbers[coded.time_s] = self._num_pushed
        self._num_pushed += 1
        if coded.is_key:
            self._keys.append(coded)
            if self._from_start and self._num_pushed == 1:
                self._wanted[coded.time_s] = []

    def _want(self, chosen: Iterable[tuple[float, float]]) -> None:
        for time_s, target_s in chosen:
            self._wanted.setdefault(time_s, []).append(target_s)

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
        until_s = min([self._choice.undecided_s, *self._wanted])
        keys = [key for key in self._keys if key.time_s <= until_s]
        if not keys or keys[-1] is self._held[0]:
            return
        self._drop(self._numbers[keys[-1].time_s] - (self._num_pushed - len(self._held)))
        self._follows = False

    def _release_all_before(self, floor_s: float) -> list[Step[P]]:
        """Steps for everything of which it is known whether it is wanted, so that it is held no longer."""
        num_known = next((i for i, coded in enumerate(self._held) if coded.time_s >= floor_s), 0)
        if num_known and (self._follows or self._held[0].is_key):
            return self._cut(0, num_known)
        if self._held_bytes > _MOST_HELD_BYTES:
            raise NotOrdinaryError("too much between two key frames")
        return []
