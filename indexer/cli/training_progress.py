"""The progress bar of training, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from indexer.cli.console import clock, say

if TYPE_CHECKING:
    from indexer.training.monitor import TrainingProgress

# Where stderr is no terminal (a log of a job), a line this often.
_LINE_EVERY_S = 10.0


class TrainingDisplay:
    """A context manager; `look` takes items that were looked at, `update` what training reports."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._last_line_s = time.monotonic()
        self._started: tuple[float, int] | None = None

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def look(self, done: int, total: int) -> None:
        self._show("looking at files", done, total, "")

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
        self._show("training", progress.step, progress.num_steps, facts)

    def _eta(self, progress: TrainingProgress) -> str:
        since_s, first = self._started or (time.monotonic(), 0)
        done = progress.step - first
        if not done:
            return "unknown"
        return clock((time.monotonic() - since_s) / done * (progress.num_steps - progress.step))

    def _show(self, phase: str, done: int, total: int, facts: str) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar, self._task = _make_bar()
            self._bar.update(self._task, completed=done, total=total, description=phase, facts=facts)
        elif time.monotonic() - self._last_line_s >= _LINE_EVERY_S:
            self._last_line_s = time.monotonic()
            say(f"{phase}: {done} of {total}{'; ' if facts else ''}{facts}")


def _make_bar() -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
    ]
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("starting", total=None, facts="")
