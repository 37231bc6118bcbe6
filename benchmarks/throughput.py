"""A race: our indexing against plain processes, Ray Data and Daft as documented, and a plain Python loop.

    python -m benchmarks.throughput --clips 12 --repeats 1     # a first impression
    python -m benchmarks.throughput --clips 240 --repeats 3    # minutes a contestant, on a quiet machine
    python -m benchmarks.throughput --only floor ours

All contestants encode the same frames of the same clips (20 s, 640 x 360, 30 Hz, made from the demo's videos or from
--videos), but for "our defaults", which look at a frame a second, take key frames where they are near, and compute in
8-bit integers where those pay, or always in floats. They take turns. Each runs as a process of its own, twice a turn:
on one clip of a second a worker, which is the start-up, and on all clips; the difference is the steady state. Ray Data
needs `pip install decord`, Daft `pip install daft`; who lacks a package is left out and named.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.contestants.clips import make_clips
from benchmarks.report import demo_videos, report

# Name: module, and the package that it needs besides ours.
CONTESTANTS = {
    "floor": ("floor", None),
    "ours": ("ours", None),
    "our defaults": ("ours_defaults", None),
    "our defaults, floats": ("ours_floats", None),
    "Ray Data": ("ray_data", "decord"),
    "Daft": ("daft_frames", "daft"),
    "loop": ("loop", None),
}
_LENGTH_S = 20.0
_TIME_LIMIT_S = 3600


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of one contestant: seconds of the short and of the long race, and what it said after the long one."""

    start_s: float
    whole_s: float
    said: dict[str, Any]

    @property
    def steady_s(self) -> float:
        return self.whole_s - self.start_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos to make the clips of; the demo's if not given")
    parser.add_argument("--clips", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rate", type=float, default=2.0, help="frames a second of video")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--core-price", type=float, default=0.04, help="of an hour of one core, in any currency")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = sorted(file for file in (given.videos or demo_videos(folder / "demo")).iterdir() if _is_video(file))
        make_clips(sources, folder / "short", given.workers, 1.0)
        make_clips(sources, folder / "clips", given.clips, _LENGTH_S)
        racing = [name for name in given.only if _is_installed(CONTESTANTS[name][1])]
        turns: dict[str, list[Turn]] = {name: [] for name in racing}
        for _ in range(given.repeats):
            for name in racing:
                turns[name].append(_turn(name, folder, given))
    report("throughput", _figures(turns, given))


def _turn(name: str, folder: Path, given: argparse.Namespace) -> Turn:
    start_s, _ = _race(name, folder / "short", given.workers, given.rate)
    whole_s, said = _race(name, folder / "clips", given.workers, given.rate)
    print(f"   {name}: {whole_s:.1f} s, of which start-up {start_s:.1f} s, {said['frames']} frames", file=sys.stderr)
    return Turn(start_s=start_s, whole_s=whole_s, said=said)


def _race(name: str, videos: Path, num_workers: int, rate: float) -> tuple[float, dict[str, Any]]:
    """Wall-clock seconds of the contestant's process, and what it says of itself: see `Finished`."""
    module = f"benchmarks.contestants.{CONTESTANTS[name][0]}"
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", module, videos, "--out", out, "--workers", num_workers, "--rate", rate]
        started = time.perf_counter()
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, check=False, timeout=_TIME_LIMIT_S
        )
        seconds = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr[-2000:]}")
    return seconds, json.loads(done.stdout.splitlines()[-1])


def _figures(turns: dict[str, list[Turn]], given: argparse.Namespace) -> dict[str, object]:
    figures: dict[str, object] = {"clips": given.clips, "workers": given.workers, "repeats": given.repeats}
    figures |= {name: _figures_of(name, turns, given) for name in turns}
    for name, (_, package) in CONTESTANTS.items():
        if package:
            figures[f"version for {name}"] = version(package) if _is_installed(package) else f"no {package} installed"
    return figures


def _figures_of(name: str, turns: dict[str, list[Turn]], given: argparse.Namespace) -> dict[str, object]:
    own = turns[name]
    steady_s = [turn.steady_s for turn in own]
    seconds, frames = statistics.median(steady_s), own[0].said["frames"]
    price = given.core_price
    per_core_hour = given.clips * _LENGTH_S / (seconds * given.workers)
    return {
        "frames": frames,
        **({"model": own[0].said["model"]} if own[0].said["model"] else {}),
        "start-up": f"{statistics.median(turn.start_s for turn in own):.1f} s",
        "steady": f"{seconds:.1f} s ({min(steady_s):.1f} to {max(steady_s):.1f})",
        "frames per second": round(frames / seconds, 1),
        "video hours per core hour": round(per_core_hour, 1),
        f"cost of 1,000 video hours at {price} a core hour": round(1000 / per_core_hour * price, 2),
        **_ratios(name, turns),
        **{f"seconds of {kind}": _shares(seconds_of) for kind, seconds_of in own[-1].said["phases"].items()},
    }


def _ratios(name: str, turns: dict[str, list[Turn]]) -> dict[str, str]:
    """Against the floor and against us, turn by turn: a slow moment of the machine hits both alike."""
    return {
        f"x {reference}": f"{statistics.median(map(_quotient, turns[name], turns[reference])):.2f}"
        for reference in ("floor", "ours", "our defaults", "our defaults, floats")
        if reference in turns and name != reference
    }


def _quotient(turn: Turn, reference: Turn) -> float:
    return turn.steady_s / reference.steady_s


def _shares(seconds_of: dict[str, float]) -> str:
    return ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in seconds_of.items())


def _is_installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None


def _is_video(file: Path) -> bool:
    return file.suffix in {".mp4", ".mkv", ".webm"}


if __name__ == "__main__":
    main()
