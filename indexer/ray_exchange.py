"""Batches on their way to the workers and results on their way back, in an actor that both sides call.

Ray Data keeps some kB of every block until the end of a run. So batches and results are no blocks: they pass through
here, a few at a time, and what is held does not grow with the number of files. A worker that dies loses nothing, as
its batch is noted here until the result has come.

A module of its own: this process is one of those that start with every run, and should not have to load what the
workers need.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

# Ray starts a worker that died anew without end. A node may be taken away now and then; a batch whose worker has died
# so often is what kills it.
MAX_DEATHS = 3
# The driver looks between two calls whether the workers still run.
_WAIT_FOR_RESULTS_S = 0.5


class Turn(NamedTuple):
    """A batch for a worker. `is_deadly`: its worker has died too often."""

    number: int
    batch: str
    is_deadly: bool


@dataclass
class _Held:
    number: int
    batch: str
    num_begun: int = 1


class Exchange:
    """Hands out batches, takes results, and counts how often workers die; in an actor, it outlives the workers.

    If it dies itself, it starts again empty, under another name, and the driver gives it once more what is under way.

    Args:
        num_workers: actors that a run starts with.
    """

    def __init__(self, num_workers: int) -> None:
        self._name = uuid.uuid4().hex
        self._num_workers = num_workers
        self._num_starts = 0
        self._todo: deque[tuple[int, str]] = deque()
        self._held: dict[int, _Held] = {}
        self._results: list[tuple[int, dict[str, Any]]] = []
        self._workers: dict[str, Any] = {}
        self._is_over = False
        self._changed = asyncio.Condition()

    async def start(self, worker: str, handle: Any) -> bool:
        """A worker starts. False if so many have begun no batch that they must have died before they could.

        Args:
            worker: id of its actor.
            handle: the actor, for those who have to stop it.
        """
        self._workers[worker] = handle
        self._num_starts += 1
        return self._num_starts <= self._num_workers * (MAX_DEATHS + 1)

    async def turn(self, seat: int, worker: str, done: tuple[int, dict[str, Any]] | None) -> Turn | None:
        """Takes a result and gives the next batch: the one that was given last, if its result has not come.

        Args:
            seat: number of the row of Ray Data's that the worker is on: when the worker has died, the next one has it.
            worker: id of its actor.
            done: number and result of the batch that was given last; None: the worker has just sat down.

        Returns:
            None when there is nothing more to do.
        """
        async with self._changed:
            held = self._held.get(seat)
            if done is not None:
                self._results.append(done)
                if held is not None and held.number == done[0]:
                    held = self._held.pop(seat) and None
                self._changed.notify_all()
            if held is not None:
                held.num_begun += 1
            else:
                await self._changed.wait_for(lambda: self._todo or self._is_over)
                if not self._todo:
                    self._workers.pop(worker, None)  # a handle would keep the actor from ending
                    return None
                held = self._held[seat] = _Held(*self._todo.popleft())
            self._num_starts = 0
            return Turn(held.number, held.batch, is_deadly=held.num_begun > MAX_DEATHS + 1)

    async def swap(
        self, batches: Mapping[int, str], is_over: bool, known_as: str
    ) -> tuple[str, list[tuple[int, dict[str, Any]]]]:
        """The driver gives batches and takes results, for which it waits a moment if there are none.

        Args:
            batches: by number; those that are here already are not taken twice.
            is_over: no more will come; but if the driver takes this object for another one, it has more to give.
            known_as: the name that the driver was told last.

        Returns:
            The name of this object, which is another one when it has been started again; numbers and results. After
            the death of a worker, or of this process, a number may come twice.
        """
        async with self._changed:
            here = {number for number, _ in self._todo} | {held.number for held in self._held.values()}
            self._todo += [batch for batch in batches.items() if batch[0] not in here]
            self._is_over = is_over and known_as == self._name
            self._changed.notify_all()
            if self._todo or self._held:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait_for(lambda: self._results), _WAIT_FOR_RESULTS_S)
            results, self._results = self._results, []
            return self._name, results

    async def stop(self) -> list[Any]:
        """Nothing more is to be done. The workers that are still at it."""
        async with self._changed:
            self._todo.clear()
            self._held.clear()
            self._is_over = True
            self._changed.notify_all()
            return list(self._workers.values())
