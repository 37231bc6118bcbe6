"""The command line that all contestants share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a contestant says of itself.

    Attributes:
        frames: encoded, or found to be like one that was.
        model: of the index, if there is one.
        phases: where its time went, if it knows: seconds per phase of each kind of process, all of a kind together.
    """

    frames: int
    model: str = ""
    phases: dict[str, dict[str, float]] = field(default_factory=dict)


def run(contestant: Callable[[Race], Finished]) -> None:
    """Parses the command line, runs the contestant and prints what it says of itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    given = parser.parse_args()
    videos = sorted(given.videos.glob("*.mp4"))
    race = Race(videos=videos, out=given.out, num_workers=given.workers, frame_rate_hz=given.rate)
    print(json.dumps(asdict(contestant(race))))
