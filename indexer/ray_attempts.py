"""How often workers died, counted outside of them.

A module of its own: the process that counts is one of those that start with every run, and should not have to load
what the workers need.
"""

from __future__ import annotations

from collections import Counter

# Ray Data starts a worker that died anew without end, and its named arguments have no limit for it. A node may be taken
# away now and then; a batch whose worker has died so often is what kills it.
MAX_DEATHS = 3


class Attempts:
    """Counts how often workers were started and batches begun; in an actor, it outlives the workers.

    Args:
        num_workers: actors that a run starts with.
    """

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._begun: Counter[str] = Counter()
        self._num_starts = 0

    def start(self) -> bool:
        """A worker starts. False if so many have begun no batch that they must have died before they could."""
        self._num_starts += 1
        return self._num_starts <= self._num_workers * (MAX_DEATHS + 1)

    def begin(self, batch: str) -> bool:
        """A worker begins a batch. False if its worker has died too often."""
        self._num_starts = 0
        self._begun[batch] += 1
        return self._begun[batch] <= MAX_DEATHS + 1
