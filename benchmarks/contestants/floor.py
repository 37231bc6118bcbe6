"""As many plain processes as workers, with our decoding and our encoder: no Ray, no guard, nothing stored."""

from __future__ import annotations

import itertools
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.contestants.arguments import Finished, Race, run
from benchmarks.contestants.network import in_batches
from indexer.ingest.video import SampledFrame, read_video
from model.weights import load_model

_BATCH = 16


def encode(videos: list[Path], frame_rate_hz: float) -> int:
    """Encodes the files one after the other with one thread; the features are dropped."""
    model = load_model("mini", num_threads=1)
    num_frames = 0
    for video in videos:
        stream = read_video(str(video), frame_rate_hz=frame_rate_hz, size_px=model.frame_size_px)
        frames = (item.pixels for item in stream if isinstance(item, SampledFrame))
        num_frames += sum(len(model.encode_frames(batch)) for batch in in_batches(frames, _BATCH))
    return num_frames


def floor(race: Race) -> Finished:
    shares = [race.videos[worker :: race.num_workers] for worker in range(race.num_workers)]
    with ProcessPoolExecutor(race.num_workers, mp_context=get_context("spawn")) as pool:
        return Finished(frames=sum(pool.map(encode, shares, itertools.repeat(race.frame_rate_hz))))


if __name__ == "__main__":
    run(floor)
