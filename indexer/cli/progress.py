"""The progress bar of a long run, on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from indexer.cli.console import clock, say

if TYPE_CHECKING:
    from indexer.pipeline import Progress

# Where stderr is no terminal (a log of a job), a line this often.
_LINE_EVERY_S = 10.0


class ProgressDisplay:
    """A context manager; `update` takes what `index_videos` reports."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._encoding_since: float | None = None
        self._last_line = 0.0

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, progress: Progress) -> None:
        if not progress.total:
            return
        if progress.phase == "encoding" and self._encoding_since is None:
            self._encoding_since = time.monotonic()
        if sys.stderr.isatty():
            self._update_bar(progress)
        elif progress.phase == "done" or time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            facts = f"; {self._facts(progress)}" if _done(progress) or progress.num_parts else ""
            say(f"{progress.phase}: {_done(progress)} of {progress.total} videos{facts}")

    def _update_bar(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar, self._task = _make_bar(progress.total)
        self._bar.update(self._task, completed=_done(progress), description=progress.phase, facts=self._facts(progress))

    def _facts(self, progress: Progress) -> str:
        summary = progress.summary
        speed = f"{summary.video_s / summary.wall_s:.1f} x real time" if summary.wall_s else ""
        num_parts = progress.num_parts
        parts = f"{num_parts} part{'s' if num_parts > 1 else ''} of long videos, " if num_parts else ""
        return f"{parts}{clock(summary.video_s)} of video, {speed}, {summary.failed} failed, ETA {self._eta(progress)}"

    def _eta(self, progress: Progress) -> str:
        done = _done(progress)
        if progress.phase == "done":
            return "0:00.0"
        if not done or self._encoding_since is None:
            return "unknown"
        # From the start of the run: the first results come in a bunch, and start-up is part of a short run anyway.
        return clock(progress.summary.wall_s / done * (progress.total - done))


def _done(progress: Progress) -> int:
    return min(progress.total, progress.summary.indexed + progress.summary.failed)


def _make_bar(total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("videos  {task.fields[facts]}"),
    ]
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("starting", total=total, facts="")
