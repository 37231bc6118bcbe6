"""What indexing and searching cost: moments a second, times real time, where the time goes, a run without changes, a
cold search.

    python -m benchmarks.indexing                    # the demo videos
    python -m benchmarks.indexing --videos FOLDER --repeats 3

Each command runs as a process of its own, as a user would start it. Times on shared machines are noisy, so the cold
search is also given as a multiple of `python -c "import torch"` in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import demo_videos, report
from indexer.config import DEFAULT_MODEL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = arguments.videos or demo_videos(Path(scratch) / "videos")
        figures = measure(videos, arguments.model, Path(scratch), arguments.repeats)
    report("indexing", figures)


def measure(videos: Path, model: str, scratch: Path, repeats: int) -> dict[str, object]:
    """Medians over the repeats; the searches and their reference take turns."""
    runs = [_index(videos, scratch / f"index-{i}", model) for i in range(repeats)]
    index = scratch / "index-0"
    again, searches, torch_imports = [], [], []
    for _ in range(repeats):
        again.append(_timed("-m", "indexer", "index", videos, "--into", index)[0])
        torch_imports.append(_timed("-c", "import torch")[0])
        searches.append(_timed("-m", "indexer", "search", index, "a dog", "--json")[0])
    ratios = [search / reference for search, reference in zip(searches, torch_imports, strict=True)]
    whole_s = statistics.median(run["process_s"] for run in runs)
    first = runs[0]
    return {
        "videos": first["indexed"],
        "moments": first["segments"],
        "seconds of video": round(first["video_s"], 1),
        "index, whole process": f"{whole_s:.1f} s",
        "moments per second, start-up included": f"{first['segments'] / whole_s:.2f}",
        "x real time, start-up included": f"{first['video_s'] / whole_s:.1f}",
        "run without changes": f"{statistics.median(again):.2f} s",
        "cold search": f"{statistics.median(searches):.2f} s",
        "import torch": f"{statistics.median(torch_imports):.2f} s",
        "cold search / import torch": f"{statistics.median(ratios):.2f}",
        **where_the_time_went(sorted(runs, key=lambda run: run["process_s"])[(repeats - 1) // 2]["profile"]),
    }


def where_the_time_went(profile: dict[str, Any]) -> dict[str, str]:
    """Seconds and share of each phase, from what `index --profile --json` says; see docs/design/pipeline.md."""
    accounts = [(f"{profile['num_workers']} workers", profile["workers"], profile["worker_s"])]
    accounts.append(("driver", profile["driver"], profile["wall_s"]))
    return {
        f"{who}, {phase}": f"{seconds:.1f} s ({seconds / total_s:.1%})"
        for who, phases, total_s in accounts
        for phase, seconds in phases.items()
        if total_s
    }


def _index(videos: Path, into: Path, model: str) -> dict[str, Any]:
    seconds, out = _timed("-m", "indexer", "index", videos, "--into", into, "--model", model, "--json", "--profile")
    return {**json.loads(out.splitlines()[-1]), "process_s": seconds}


def _timed(*arguments: object) -> tuple[float, str]:
    """Wall-clock seconds of a Python process, and its stdout. Exit code 3 means that some videos failed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{' '.join(map(str, arguments))} failed: {done.stderr}")
    return time.perf_counter() - started, done.stdout


if __name__ == "__main__":
    main()
