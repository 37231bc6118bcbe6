"""The command line that all contestants share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Race:
    """What a contestant is asked to do.

    Attributes:
        videos: the files.
        out: an empty folder for what it stores.
        num_workers: cores to use.
        frame_rate_hz: frames a second of video to encode.
    """

    videos: list[Path]
    out: Path
    num_workers: int
    frame_rate_hz: float


def run(contestant: Callable[[Race], int]) -> None:
    """Parses the command line, runs the contestant and prints how many frames it says it encoded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    given = parser.parse_args()
    videos = sorted(given.videos.glob("*.mp4"))
    race = Race(videos=videos, out=given.out, num_workers=given.workers, frame_rate_hz=given.rate)
    print(json.dumps({"frames": contestant(race)}))
