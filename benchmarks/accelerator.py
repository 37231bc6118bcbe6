"""Does an accelerator wait for what feeds it? Measured with a simulated one, on CPUs.

    python -m benchmarks.accelerator                                # two minutes
    python -m benchmarks.accelerator --speeds 300 1000 3000 --senders 1 2 4
    python -m benchmarks.accelerator --videos FOLDER --clips 96     # real decoding of these files, as clips

The accelerator is slept for: each batch takes a launch and then so many frames a second, in the order in which batches
were given to it, and the processor is free meanwhile, as it is when a GPU computes. All else is real: Ray, the actor
that workers share, its clients, decoding, files and commits. Frames are copied once more on their way to it, which is
what an upload costs the host; features are a few pixels, repeated.

First senders that only send, as fast as they may: a device of each speed, and one that takes no time, which shows what
the way to it bears. Then `index` with two decoding workers: with the device that takes no time, and with devices of a
share of the frames a second that this gave. "Busy" is the share of the time, from the device's first frame to its last,
in which it computed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import ray

from benchmarks.contestants.clips import make_clips
from benchmarks.report import demo_videos, report
from indexer.config import RunConfig, SamplingConfig
from indexer.ingest.encode import STORED
from indexer.ingest.frame_model import FrameModel
from indexer.pipeline import index_videos
from indexer.ray_encoding import ray_cluster
from indexer.ray_shared_model import SharedModel, SharedModelClient
from model.facts import model_config
from model.gpu_batches import gpu_batches

_MODEL = "mini"
_LAUNCH_S = 0.004
_SEND_S = 6.0
_LENGTH_S = 20.0
_VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm")


class Accelerator(FrameModel):
    """A device that computes so many frames a second, one batch after the other, and takes no processor time.

    Args:
        frames_per_s: its speed; 0 for one that takes no time.
    """

    def __init__(self, frames_per_s: float) -> None:
        config = model_config(_MODEL)
        self.frame_size_px, self.label_names = config.frame_size_px, ["one", "another"]
        self._frames_per_s, self._shape, self._dim = frames_per_s, config.feature_shape, config.embedding_dim
        self._free_at = 0.0
        self._memory = np.zeros((0, 0, 0, 0), np.uint8)
        self.computed: list[tuple[float, float, int]] = []  # of each batch: start, end, frames

    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        self._upload(frames)
        begins = max(time.perf_counter(), self._free_at)
        ends = self._free_at = begins + self._takes_s(len(frames))
        self.computed.append((begins, ends, len(frames)))
        features = np.resize(frames[:, 0, 0, :1].astype(STORED) / 255, (len(frames), 1)).repeat(self._shape[1], axis=1)
        features = features[:, None].repeat(self._shape[0], axis=1)

        def fetch() -> np.ndarray:
            time.sleep(max(0.0, ends - time.perf_counter()))
            return features

        return fetch

    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        vectors = np.ones((len(features), self._dim), np.float32)
        vectors[:, 0] += features.reshape(len(features), -1).mean(axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.full((len(features), 2), 0.5, np.float32)

    def _takes_s(self, num_frames: int) -> float:
        if not self._frames_per_s:
            return 0.0
        return sum(_LAUNCH_S + size / self._frames_per_s for size in gpu_batches(num_frames))

    def _upload(self, frames: np.ndarray) -> None:
        if len(self._memory) < len(frames):
            self._memory = np.zeros_like(frames)
        np.copyto(self._memory[: len(frames)], frames)


class WatchedModel(SharedModel):
    """The shared model of an accelerator, which notes what comes in and how busy the device is."""

    def __init__(self, frames_per_s: float) -> None:
        self._accelerator = Accelerator(frames_per_s)
        self._under_way, self._arrivals = 0, 0
        self._most_under_way, self._most_bytes = 0, 0
        super().__init__("", "cpu", 1)

    def _load(self, name: str, device: str, num_threads: int) -> FrameModel:
        return self._accelerator

    async def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        self._arrivals += 1
        self._under_way += 1
        self._most_under_way = max(self._most_under_way, self._under_way)
        try:
            return await super().encode_frames(frames)
        finally:
            self._under_way -= 1

    async def seen(self) -> dict[str, Any]:
        """What was computed since this was asked last, and forgets it."""
        computed, self._accelerator.computed = self._accelerator.computed, []
        frames = sum(number for _, _, number in computed)
        lasted_s = computed[-1][1] - computed[0][0]
        busy_s = sum(end - start for start, end, _ in computed)
        waits = [later[0] - earlier[1] for earlier, later in zip(computed, computed[1:], strict=False)]
        said = {
            "frames per second": round(frames / lasted_s) if lasted_s else 0,
            "busy": round(busy_s / lasted_s, 3) if lasted_s else 0,
            "frames": frames,
            "frames a batch": round(frames / len(computed), 1),
            "requests": self._arrivals,
            "requests under way at most": self._most_under_way,
            "ms between batches": round(1000 * sum(waits) / max(1, len(waits)), 2),
            "MiB of the model's process": round(_peak_bytes("self") / 2**20),
        }
        self._most_under_way = self._arrivals = 0
        return said


def main() -> None:
    print("")


def start(frames_per_s: float) -> Any:
    return ray.remote(WatchedModel).options(num_cpus=0).remote(frames_per_s)


def send(actors: Sequence[Any], seconds: float, frames_a_request: int = 10) -> float:
    """Frames a second that one sender gets through. They come in moments of ten, as from a video."""
    client = SharedModelClient(actors)
    side = client.frame_size_px
    moment = np.random.default_rng(0).integers(0, 256, (frames_a_request, side, side, 3), dtype=np.uint8)
    started, waiting, count = time.perf_counter(), deque([client.encode_frames(moment)]), 0
    while waiting:
        if time.perf_counter() - started < seconds:
            waiting.append(client.encode_frames(moment))
        if len(waiting) > 12 or time.perf_counter() - started >= seconds:
            count += len(waiting.popleft()())
    return count / (time.perf_counter() - started)


def _peak_bytes(process: str) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def sent(speed: float, senders: int, n: int = 10) -> dict[str, Any]:
    with ray_cluster(num_cpus=senders + 1):
        actor = start(speed)
        feed: Any = ray.remote(send)
        ray.get([feed.remote([actor], 0.2) for _ in range(senders)])
        ray.get(actor.seen.remote())
        ray.get([feed.remote([actor], _SEND_S, n) for _ in range(senders)])
        return ray.get(actor.seen.remote())


def indexed(speed: float, workers: int, videos: Path) -> dict[str, Any]:
    actors: list[Any] = []
    said: dict[str, Any] = {}

    def started(settings: Any, device: str, count: int) -> list[Any]:
        actors.append(start(speed))
        return actors

    class Run:
        pass

    with tempfile.TemporaryDirectory() as out, patch("indexer.ray_encoding.start_shared_models", started):
        import indexer.ray_encoding as r
        real = r.encode_on_ray
        def enc(*a, **k):
            yield from real(*a, **k)
            said.update(ray.get(actors[0].seen.remote()))
        with patch("indexer.pipeline.encode_on_ray", enc) if hasattr(__import__("indexer.pipeline").pipeline, "encode_on_ray") else patch("indexer.ray_encoding.encode_on_ray", enc):
            s = index_videos([str(videos)], Path(out) / "index", model="mini", sampling=SamplingConfig(),
                run=RunConfig(num_workers=workers, share_model=True))
    said["profile"] = s.profile
    return said
