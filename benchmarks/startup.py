"""How long people wait before anything happens: for help, and for a search.

    python -m benchmarks.startup                     # an index of the demo videos
    python -m benchmarks.startup --index my-index --repeats 9

Every command is a process of its own, from its start to its end, and all take turns with `python -c "import torch"`.
On a machine with other work the wall clock says little, so the time on the processor, of all threads, is given too.
Bars: help below 0.5 s; a search on a warm disk at most 2 x the time of `import torch`.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import demo_videos, report
from indexer.config import DEFAULT_MODEL

_REFERENCE = "import torch"


class Took(NamedTuple):
    """Seconds of one process: on the wall, and on the processor."""

    wall: float
    processor: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path, help="an index; of the demo videos if not given")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        report("startup", measure(arguments.index or _demo_index(Path(scratch)), arguments.repeats))


def measure(index: Path, repeats: int) -> dict[str, object]:
    """Medians and ranges; ratios are of neighbours in time."""
    commands: dict[str, Sequence[object]] = {
        _REFERENCE: ["-c", "import torch"],
        "help": ["-m", "indexer", "--help"],
        "search": ["-m", "indexer", "search", index, "a dog", "--json"],
    }
    for command in commands.values():
        _run(command)  # afterwards the disk is warm
    took: dict[str, list[Took]] = {name: [] for name in commands}
    for _ in range(repeats):
        for name, command in commands.items():
            took[name].append(_run(command))
    figures: dict[str, object] = {}
    for clock in Took._fields:
        seconds = {name: [getattr(each, clock) for each in times] for name, times in took.items()}
        figures |= {f"{name}, s, {clock}": _spread(each) for name, each in seconds.items()}
        ratios = [search / torch for search, torch in zip(seconds["search"], seconds[_REFERENCE], strict=True)]
        figures[f"search / {_REFERENCE}, {clock}"] = _spread(ratios)
    return figures


def _run(command: Sequence[object]) -> Took:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed: {done.stderr}")
    return Took(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def _demo_index(scratch: Path) -> Path:
    index = scratch / "index"
    _run(["-m", "indexer", "index", demo_videos(scratch / "videos"), "--into", index, "--model", DEFAULT_MODEL])
    return index


if __name__ == "__main__":
    main()
