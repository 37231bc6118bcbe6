"""`refresh` against indexing the same videos: both as whole processes, in one run.

    python -m benchmarks.refresh [--videos FOLDER] [--copies 4]

Each video is taken several times under different names, as a refresh of a few clips is all start-up. The new model is
`mini` with another gate: what `videobert train` makes of it. Indexing is timed with `mini`, as the gate costs nothing.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.report import demo_videos, report
from indexer import VideoIndex
from indexer.ingest.paths import is_video_name
from model.checkpoint import save_checkpoint
from model.weights import base_checksums, load_videobert


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, help="folder of videos; the demo's if not given")
    parser.add_argument("--copies", type=int, default=4, help="times each video is taken")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        videos = arguments.videos or demo_videos(Path(scratch) / "demo")
        report("refresh", measure(videos, arguments.copies, Path(scratch)))


def measure(videos: Path, copies: int, folder: Path) -> dict[str, object]:
    """Moments, seconds of each whole process, and how many times as fast refreshing is, with start-up and without."""
    sources, model = folder / "videos", folder / "new.safetensors"
    _copy(videos, sources, copies)
    _write_model(model)
    index = folder / "index"
    index_s = _run("index", str(sources), "--into", str(index), "--model", "mini")
    refresh_s = _run("refresh", str(index), "--model", str(model))
    start_up_s = _run("refresh", str(index), "--model", str(model))  # has nothing to do
    return {
        "moments": VideoIndex.open(index).snapshot.num_segments,
        "index_s": round(index_s, 1),
        "refresh_s": round(refresh_s, 1),
        "of_this_start_up_s": round(start_up_s, 1),
        "times_as_fast": round(index_s / refresh_s, 1),
        "times_as_fast_without_start_up": round(index_s / max(0.01, refresh_s - start_up_s), 1),
    }


def _copy(videos: Path, target: Path, copies: int) -> None:
    for number in range(copies):
        (target / str(number)).mkdir(parents=True)
        for path in videos.iterdir():
            if is_video_name(path.name):
                shutil.copy(path, target / str(number) / path.name)


def _write_model(path: Path) -> None:
    model = load_videobert("mini")
    with torch.no_grad():
        model.gate.mul_(0.9)
    save_checkpoint(model, model.config, base_checksums(model.config), path)


def _run(*arguments: str) -> float:
    started_s = time.monotonic()
    subprocess.run([sys.executable, "-m", "indexer", *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started_s


if __name__ == "__main__":
    main()
