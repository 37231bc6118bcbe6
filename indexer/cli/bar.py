"""How far something is, on stderr: a bar on a terminal; elsewhere, as in the log of a job, a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

from indexer.cli.console import say

_LINE_EVERY_S = 10.0


class Bar:
    """A context manager, which takes the bar away at its end.

    Args:
        unit: what is counted, in the plural.
        is_patient: something short should end without any line.
    """

    def __init__(self, unit: str = "", *, is_patient: bool = False) -> None:
        self._unit = unit
        self._bar: Any = None
        self._task: Any = None
        self._next_line_s = time.monotonic() + (_LINE_EVERY_S if is_patient else 0.0)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, phase: str, done: int, total: int, facts: str = "", *, is_last: bool = False) -> None:
        """Shows that so much of it is done; what is last is not left out."""
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar, self._task = _make_bar()
            values = {"description": phase, "unit": self._unit, "facts": facts}
            self._bar.update(self._task, completed=done, total=total, **values)
        elif is_last or time.monotonic() >= self._next_line_s:
            self._next_line_s = time.monotonic() + _LINE_EVERY_S
            counted = f"{done} of {total} {self._unit}".rstrip()
            say(f"{phase}: {counted}{'; ' if facts else ''}{facts}")


def _make_bar() -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"),
        TextColumn("{task.fields[facts]}"),
    ]
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    bar.start()
    return bar, bar.add_task("", total=None, unit="", facts="")
