"""Does an accelerator wait for what feeds it? Measured with a simulated one, on CPUs.

    python -m benchmarks.accelerator                                # three minutes
    python -m benchmarks.accelerator --speeds 300 1000 3000 --senders 1 2 4
    python -m benchmarks.accelerator --videos FOLDER --clips 96     # clips of these videos

The device is slept for: a batch takes 4 ms and then so many frames a second, in the order in which the batches came;
the processor is free meanwhile, as when a GPU computes. All else is real: Ray, the actor that workers share, its
clients, decoding, files and commits.

First senders that only send, moments of ten frames as fast as they may: to a device that takes no time, which shows
what the way to it bears, and to devices of each speed. Then `index` with two workers that decode: again with a device
that takes no time, and with devices of a share of the frames a second that came then. Vectors of moments take
`--fusing` seconds a video, one after the other, beside the frames. "Busy" is the share of the time from the first frame
to the last in which the device computed, frames or what fills up their batches.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import ray

from benchmarks.contestants.clips import make_clips
from benchmarks.report import demo_videos, report
from benchmarks.simulated_accelerator import MODEL, start_watched
from indexer import ray_encoding
from indexer.config import RunConfig, SamplingConfig
from indexer.pipeline import index_videos
from indexer.ray_cluster import ray_cluster
from indexer.ray_model_client import SharedModelClient

_SEND_S = 4.0
_LENGTH_S = 20.0
_FRAMES_A_MOMENT = 10
_LOOK_EVERY_S = 0.05
_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speeds", type=float, nargs="*", default=[300, 3000], help="frames a second")
    parser.add_argument("--senders", type=int, nargs="+", default=[2])
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5], help="of what the decoders give")
    parser.add_argument("--videos", type=Path, help="folder of videos to make the clips of; the demo's if not given")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=_LENGTH_S, help="length of a clip")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fusing", type=float, default=0.02, help="seconds that the vectors of a video take")
    given = parser.parse_args()
    figures: dict[str, object] = {}

    def note(name: str, seen: dict[str, Any]) -> None:
        figures[name] = {what: round(value, 3 if value < 10 else 1) for what, value in seen.items()}
        print(name, figures[name], file=sys.stderr)

    for senders in given.senders:
        for speed in [0.0, *given.speeds]:
            note(f"{senders} senders, {_device(speed)}", sent(speed, senders))
    if given.shares:
        with tempfile.TemporaryDirectory() as scratch:
            sources = given.videos or demo_videos(Path(scratch) / "demo")
            clips = Path(scratch) / "clips"
            videos = sorted(file for file in sources.iterdir() if file.suffix in _VIDEO_SUFFIXES)
            make_clips(videos, clips, given.clips, given.seconds)
            decoded = indexed(0.0, given.workers, clips, given.fusing)
            note(f"{given.workers} workers, {_device(0)}", decoded)
            for share in given.shares:
                speed = share * decoded["frames per second"]
                note(f"{given.workers} workers, {_device(speed)}", indexed(speed, given.workers, clips, given.fusing))
    report("accelerator", figures)


def _device(speed: float) -> str:
    return f"a device of {speed:.0f} frames/s" if speed else "a device that takes no time"


def sent(speed: float, num_senders: int, seconds: float = _SEND_S) -> dict[str, Any]:
    """What a device of so many frames a second sees of senders that have nothing else to do."""
    with ray_cluster(num_cpus=num_senders):
        model = start_watched(speed)
        sender: Any = ray.remote(send)
        ray.get([sender.remote([model], 0.0) for _ in range(num_senders)])  # processes are there, imports done
        ray.get(model.seen.remote())
        with _store_watched() as most:
            ray.get([sender.remote([model], seconds) for _ in range(num_senders)])
        return _of_speed(speed, ray.get(model.seen.remote())) | most


def send(models: Sequence[Any], seconds: float) -> float:
    """Frames a second that one worker gets through. They come in moments of ten, as from a video."""
    client = SharedModelClient(models)
    side = client.frame_size_px
    moment = np.random.default_rng(0).integers(0, 256, (_FRAMES_A_MOMENT, side, side, 3), dtype=np.uint8)
    started, count = time.perf_counter(), 0
    under_way: deque[Callable[[], np.ndarray]] = deque()
    while not count or time.perf_counter() - started < seconds:
        under_way.append(client.encode_frames(moment))
        if len(under_way) > 30 or not count:  # the moments that a worker keeps together
            count += len(under_way.popleft()())
    return (count + sum(len(features()) for features in under_way)) / (time.perf_counter() - started)


def indexed(speed: float, num_workers: int, clips: Path, fusing_s: float) -> dict[str, Any]:
    """What a device of so many frames a second sees of `index` with so many workers."""
    seen: dict[str, Any] = {}
    encode_on_ray = ray_encoding.encode_on_ray

    def encode(*arguments: Any) -> Iterator[Any]:
        model = start_watched(speed, fusing_s)
        started = patch.object(ray_encoding, "start_shared_models", lambda settings, device, count: [model])
        with started, _store_watched() as most:
            yield from encode_on_ray(*arguments)
            seen.update(ray.get(model.seen.remote()))
        seen.update(most)

    run = RunConfig(num_workers=num_workers, share_model=True)
    with tempfile.TemporaryDirectory() as out, patch.object(ray_encoding, "encode_on_ray", encode):
        index_videos([str(clips)], Path(out) / "index", model=MODEL, sampling=SamplingConfig(), run=run)
    return _of_speed(speed, seen)


def _of_speed(speed: float, seen: dict[str, Any]) -> dict[str, Any]:
    return ({"share of its speed": seen["frames per second"] / speed} if speed else {}) | seen


@contextmanager
def _store_watched() -> Iterator[dict[str, float]]:
    """Fills in, when the block ends, the most that Ray's object store held meanwhile."""
    size = ray.cluster_resources()["object_store_memory"]
    most: dict[str, float] = {"MiB of the object store at most": 0.0}
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_EVERY_S):
            used = size - ray.available_resources().get("object_store_memory", size)
            most.update((name, max(before, used / 2**20)) for name, before in most.items())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        over.set()
        watcher.join()


if __name__ == "__main__":
    main()
