"""What training shows of itself while it goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from indexer.cli.bar import Bar
from indexer.cli.console import clock

if TYPE_CHECKING:
    from indexer.training.monitor import TrainingProgress


class TrainingDisplay:
    """A context manager; `look` takes items that were looked at, `update` what training reports."""

    def __init__(self) -> None:
        self._bar = Bar(is_patient=True)
        self._started: tuple[float, int] | None = None

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def look(self, done: int, total: int) -> None:
        self._bar.show("looking at files", done, total)

    def update(self, progress: TrainingProgress) -> None:
        if self._started is None:
            self._started = (time.monotonic(), progress.step)
        losses = ", ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
        measured = "".join(
            f", {name} {value:.3g}"
            for name, value in progress.metrics.items()
            if "@" in name or len(progress.metrics) < 3
        )
        speed = f"{progress.items_per_s:.0f} items/s, ETA {self._eta(progress)}"
        facts = f"epoch {progress.epoch}, loss {losses}{measured}, {speed}"
        self._bar.show("training", progress.step, progress.num_steps, facts)

    def _eta(self, progress: TrainingProgress) -> str:
        since_s, first = self._started or (time.monotonic(), 0)
        done = progress.step - first
        if not done:
            return "unknown"
        return clock((time.monotonic() - since_s) / done * (progress.num_steps - progress.step))
