"""A race: our indexing against plain processes, Ray Data and Daft as documented, and a plain Python loop.

    python -m benchmarks.throughput --clips 12 --repeats 1     # a first impression
    python -m benchmarks.throughput --clips 240 --repeats 3    # minutes a contestant, on a quiet machine
    python -m benchmarks.throughput --only floor ours

All contestants encode the same frames of the same clips (20 s, 640 x 360, 30 Hz, made from the demo's videos or from
--videos). They take turns. Each runs as a process of its own, twice a turn: on one clip of a second a worker, which is
the start-up, and on all clips; the difference is the steady state. Ray Data needs `pip install decord`, Daft
`pip install daft`; who lacks a package is left out and named.
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
from importlib.metadata import version
from pathlib import Path

from benchmarks.contestants.clips import make_clips
from benchmarks.report import demo_videos, report

# Name: module, and the package that it needs besides ours.
CONTESTANTS = {
    "floor": ("floor", None),
    "ours": ("ours", None),
    "Ray Data": ("ray_data", "decord"),
    "Daft": ("daft_frames", "daft"),
    "loop": ("loop", None),
}
_LENGTH_S = 20.0
_TIME_LIMIT_S = 3600


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
        runs: dict[str, list[tuple[float, float, int]]] = {name: [] for name in racing}
        for _ in range(given.repeats):
            for name in racing:
                start_s, _ = _race(name, folder / "short", given.workers, given.rate)
                whole_s, frames = _race(name, folder / "clips", given.workers, given.rate)
                runs[name].append((start_s, whole_s, frames))
                print(
                    f"   {name}: {whole_s:.1f} s, of which start-up {start_s:.1f} s, {frames} frames", file=sys.stderr
                )
    report("throughput", _figures(runs, given))


def _figures(runs: dict[str, list[tuple[float, float, int]]], given: argparse.Namespace) -> dict[str, object]:
    video_h = given.clips * _LENGTH_S / 3600
    figures: dict[str, object] = {"clips": given.clips, "workers": given.workers, "repeats": given.repeats}
    steady = {name: [whole - start for start, whole, _ in turns] for name, turns in runs.items()}
    for name, turns in runs.items():
        seconds = statistics.median(steady[name])
        per_core_hour = video_h / (seconds * given.workers / 3600)
        figures[name] = {
            "frames": turns[0][2],
            "start-up": f"{statistics.median(start for start, _, _ in turns):.1f} s",
            "steady": f"{seconds:.1f} s ({min(steady[name]):.1f} to {max(steady[name]):.1f})",
            "frames per second": round(turns[0][2] / seconds, 1),
            "video hours per core hour": round(per_core_hour, 1),
            f"cost of 1,000 video hours at {given.core_price} a core hour": round(
                1000 / per_core_hour * given.core_price, 2
            ),
            **_ratios(name, steady),
        }
    for name, (_, package) in CONTESTANTS.items():
        if package:
            figures[f"version for {name}"] = version(package) if _is_installed(package) else f"no {package} installed"
    return figures


def _ratios(name: str, steady: dict[str, list[float]]) -> dict[str, str]:
    """Against the floor and against ours, turn by turn: a slow moment of the machine hits both alike."""
    return {
        f"x {reference}": f"{statistics.median(map(_quotient, steady[name], steady[reference])):.2f}"
        for reference in ("floor", "ours")
        if reference in steady and name != reference
    }


def _quotient(seconds: float, reference_s: float) -> float:
    return seconds / reference_s


def _race(name: str, videos: Path, num_workers: int, rate: float) -> tuple[float, int]:
    """Wall-clock seconds of the contestant's process, and the frames that it encoded."""
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
    return seconds, json.loads(done.stdout.splitlines()[-1])["frames"]


def _is_installed(package: str | None) -> bool:
    return package is None or importlib.util.find_spec(package) is not None


def _is_video(file: Path) -> bool:
    return file.suffix in {".mp4", ".mkv", ".webm"}


if __name__ == "__main__":
    main()
