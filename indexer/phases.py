"""Where the time of a run goes: seconds per phase, measured by the workers and by the driver.

Workers' phases: start (Ray, the process, the model) · open (fingerprint, container, first frame) · decode · resize
(to the model's size, and thumbnails) · encode (frames to features) · fuse (features and text to vectors) · write ·
idle.
The driver's: list (and compare with the ledger) · commit · vectors (and keywords) · wait (for the workers).
A model that workers share, on a GPU: encode · idle; the workers' own "encode" is then what they wait for it.
"""

from __future__ import annotations

import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")

WORKER_PHASES = ("start", "open", "decode", "resize", "encode", "fuse", "write", "idle")
DRIVER_PHASES = ("list", "commit", "vectors", "wait")
MODEL_PHASES = ("encode", "idle")


class Stopwatch:
    """Seconds per phase of one process. Two looks at a clock a phase: well below a thousandth of the work.

    Attributes:
        num_on_gpu: videos and parts of long ones that a GPU decoded.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.num_on_gpu = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Counts the time of the block. Blocks must not be nested."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - started

    def waits(self, items: Iterable[T], *, first: str, rest: str) -> Iterator[T]:
        """Passes items on and counts the time that each was waited for, the first in one phase, the rest in another."""
        name, source = first, iter(items)
        while True:
            with self.phase(name):
                item = next(source, self)
            if item is self:
                return
            yield item  # type: ignore[misc]
            name = rest

    def move(self, seconds: float, *, source: str, target: str) -> None:
        """Counts some of the time of a phase, at most all of it, in another one: of what a child process reports."""
        moved = min(max(0.0, seconds), self.seconds[source])
        self.seconds[source] -= moved
        self.seconds[target] += moved


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What one worker did with its time since its last report.

    Attributes:
        worker: random name of the worker.
        kind: "worker", or "model" for a model that workers share.
        seconds: per phase; they add up to the time since that report, or since the worker began.
        num_on_gpu: see `Stopwatch`.
    """

    worker: str = ""
    kind: str = "worker"
    seconds: dict[str, float] = field(default_factory=dict)
    num_on_gpu: int = 0


class WorkerClock:
    """A worker's own account: whatever it does not count between two reports, it waited for work."""

    def __init__(self) -> None:
        self.watch = Stopwatch()
        self._name = uuid.uuid4().hex[:12]
        self._reported_at = time.perf_counter()

    def report(self) -> Spent:
        """What was counted since the last report, and as "idle" what was not."""
        now = time.perf_counter()
        seconds, self.watch.seconds = dict(self.watch.seconds), defaultdict(float)
        seconds["idle"] = max(0.0, now - self._reported_at - sum(seconds.values()))
        self._reported_at = now
        num_on_gpu, self.watch.num_on_gpu = self.watch.num_on_gpu, 0
        return Spent(worker=self._name, seconds=seconds, num_on_gpu=num_on_gpu)


class Profile:
    """The account of a run, kept by the driver."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.watch = Stopwatch()
        self._workers: defaultdict[str, float] = defaultdict(float)
        self._reported: dict[str, float] = {}
        self._last_seen: dict[str, float] = {}
        self._models: dict[str, dict[str, float]] = {}
        self._num_on_gpu = 0
        self._began = self._ended = 0.0

    def begin_work(self) -> None:
        """Workers are about to be started."""
        self._began = self._ended = time.perf_counter()

    def note(self, spent: Spent) -> None:
        """A worker's report has arrived; of a shared model, its only one."""
        if spent.kind == "model":
            self._models[spent.worker] = spent.seconds
            return
        self._ended = time.perf_counter()
        self._num_on_gpu += spent.num_on_gpu
        if spent.worker:
            for phase, seconds in spent.seconds.items():
                self._workers[phase] += seconds
            self._reported[spent.worker] = self._reported.get(spent.worker, 0.0) + sum(spent.seconds.values())
            self._last_seen[spent.worker] = self._ended

    def to_dict(self) -> dict[str, Any]:
        """Seconds per phase; those of the workers add up to `num_workers` times the time in which there were any.

        A worker's start ends where its own account begins, and after its last report it is idle until the last report
        of all. So no two clocks are compared.
        """
        lifetime_s = self._ended - self._began
        workers = self._workers.copy()
        for worker, seen_at in self._last_seen.items():
            workers["idle"] += self._ended - seen_at
            workers["start"] += max(0.0, seen_at - self._began - self._reported[worker])
        wall_s = time.perf_counter() - self._started
        driver = self.watch.seconds.copy()
        driver["wait"] = max(0.0, wall_s - sum(driver.values()))
        told = {
            "num_workers": len(self._last_seen),
            "num_on_gpu": self._num_on_gpu,
            "worker_s": round(lifetime_s * len(self._last_seen), 3),
            "workers": {name: round(workers[name], 3) for name in WORKER_PHASES},
            "wall_s": round(wall_s, 3),
            "driver": {name: round(driver[name], 3) for name in DRIVER_PHASES},
        }
        if self._models:
            models = {name: sum(spent[name] for spent in self._models.values()) for name in MODEL_PHASES}
            told |= {
                "num_models": len(self._models),
                "model_s": round(sum(models.values()), 3),
                "models": {name: round(seconds, 3) for name, seconds in models.items()},
            }
        return told
