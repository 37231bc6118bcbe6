"""A device of known speed in place of a GPU, and the actor that workers share, watched."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray

from indexer.ingest.frame_model import FrameModel
from indexer.ingest.fuse import STORED
from indexer.ray_shared_model import SharedModel
from model.facts import model_config
from model.gpu_batches import gpu_batches

MODEL = "mini"
# That of a batch of 32 in `mini` on an H200, less what its frames take.
LAUNCH_S = 0.004


class Accelerator(FrameModel):
    """A device that computes batch after batch in the order in which it got them, and takes no processor time.

    As on a GPU, `encode_frames` returns when the batch is in its queue. Frames are copied, which is what an upload
    costs the host, and batches are filled up. The features of a frame are its first pixel, repeated.

    Args:
        frames_per_s: its speed, but for the launches; 0: it takes no time at all.
        fusing_s: what the vectors of some moments take.

    Attributes:
        computed: of each batch when it began, when it ends, and its frames.
    """

    def __init__(self, frames_per_s: float, fusing_s: float) -> None:
        config = model_config(MODEL)
        self.frame_size_px, self.label_names = config.frame_size_px, ["one", "another"]
        self._fusing_s = fusing_s
        self._frames_per_s, self._shape, self._dim = frames_per_s, config.feature_shape, config.embedding_dim
        self._memory = np.zeros((0, 0, 0, 3), np.uint8)
        self.computed: list[tuple[float, float, int]] = []

    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        if len(self._memory) < len(frames):
            self._memory = np.zeros_like(frames)
        np.copyto(self._memory[: len(frames)], frames)
        begins_at = max(time.perf_counter(), self.computed[-1][1] if self.computed else 0.0)
        ends_at = begins_at + self._takes_s(len(frames))
        self.computed.append((begins_at, ends_at, len(frames)))
        pixels = frames[:, 0, 0].mean(axis=1).astype(STORED)
        features = np.broadcast_to(pixels[:, None, None], (len(frames), *self._shape))

        def fetch() -> np.ndarray:
            time.sleep(max(0.0, ends_at - time.perf_counter()))
            return features

        return fetch

    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Vectors that say nothing. Beside the frames, as `SharedModel` does it on a GPU."""
        time.sleep(self._fusing_s)
        return np.full((len(features), self._dim), self._dim**-0.5, np.float32), np.zeros((len(features), 2))

    def _takes_s(self, num_frames: int) -> float:
        if not self._frames_per_s:
            return 0.0
        return sum(LAUNCH_S + size / self._frames_per_s for size in gpu_batches(num_frames))


class WatchedModel(SharedModel):
    """The shared model on an accelerator; notes what comes in, and how busy the device is."""

    def __init__(self, frames_per_s: float, fusing_s: float = 0.0) -> None:
        self._accelerator = Accelerator(frames_per_s, fusing_s)
        super().__init__(MODEL, "cpu", 1)
        self._forget()

    def _load(self, name: str, device: str, num_threads: int) -> FrameModel:
        return self._accelerator

    def _forget(self) -> None:
        self._accelerator.computed = []
        self._num_requests = self._bytes_under_way = self._most_bytes = 0
        self._processor_s = time.process_time()

    async def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        self._num_requests += 1
        self._bytes_under_way += frames.nbytes
        self._most_bytes = max(self._most_bytes, self._bytes_under_way)
        try:
            return await super().encode_frames(frames)
        finally:
            self._bytes_under_way -= frames.nbytes

    async def seen(self) -> dict[str, Any]:
        """Since this was asked last, from the first frame that was computed to the last."""
        batches, num_requests, most_bytes = self._accelerator.computed, self._num_requests, self._most_bytes
        lasted_s = max(1e-9, batches[-1][1] - batches[0][0])  # of one batch that takes no time
        frames = sum(number for _, _, number in batches)
        still_s = sum(later[0] - earlier[1] for earlier, later in pairwise(batches))
        processor_s = time.process_time() - self._processor_s
        self._forget()
        return {
            "frames": frames,
            "frames per second": frames / lasted_s,
            "busy": 1 - still_s / lasted_s,
            "frames a batch": frames / len(batches),
            "ms it stood still before a batch": 1000 * still_s / max(1, len(batches) - 1),
            "frames a request": frames / num_requests,
            "MiB of frames under way at most": most_bytes / 2**20,
            "ms of the model's processor a request": 1000 * processor_s / num_requests,
            "MiB of the model's process at most": _peak_bytes() / 2**20,
        }


def start_watched(frames_per_s: float, fusing_s: float = 0.0) -> Any:
    """The actor of a `WatchedModel`."""
    start: Any = ray.remote(WatchedModel).options(num_cpus=0).remote
    return start(frames_per_s, fusing_s)


def _peak_bytes() -> int:
    """Of this process, with what it sees of Ray's object store."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
