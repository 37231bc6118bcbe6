"""What a long run of `index` or `retry` shows of itself while it goes on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from indexer.cli.bar import Bar
from indexer.cli.console import clock

if TYPE_CHECKING:
    from indexer.pipeline import Progress


class ProgressDisplay:
    """A context manager; `update` takes what `index_videos` reports."""

    def __init__(self) -> None:
        self._bar = Bar("videos")
        self._encoding_since: float | None = None

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.__exit__(*error)

    def update(self, progress: Progress) -> None:
        if not progress.total:
            return
        if progress.phase == "encoding" and self._encoding_since is None:
            self._encoding_since = time.monotonic()
        done = _done(progress)
        facts = self._facts(progress) if done or progress.num_parts else ""
        self._bar.show(progress.phase, done, progress.total, facts, is_last=progress.phase == "done")

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
