"""One model that many decoding workers share: how a GPU is fed.

    decoding worker (a core) ──uint8 frames, a few megabytes at a time──▶ SharedModel (a GPU) ──features──▶ worker

What waits while the GPU computes is its next batch, whatever videos it comes from: so batches grow with the number of
workers, and nobody waits for one to fill up. The next batch is there before one is done, if enough frames wait. The
workers' side is `indexer.ray_model_client`. All else, moments, files and commits, is done by the worker, as without a
GPU.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import ray

from indexer.batches import EncoderSettings
from indexer.errors import WorkerError
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.fuse import STORED
from indexer.phases import Spent
from model.errors import ModelError
from model.gpu_batches import GPU_BATCH_SIZES
from model.weights import load_model

# Frames that the model is given at once, and so many of a second batch before the first is done. More keep a GPU no
# busier.
MAX_FRAMES_AT_ONCE = GPU_BATCH_SIZES[-1]
_MIN_FRAMES_AHEAD = GPU_BATCH_SIZES[0]
# A process that a GPU's driver killed is started again so often.
_MAX_RESTARTS = 3


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a worker has to know of the model, see `VideoTextModel`, and the node that it is on."""

    frame_size_px: int
    label_names: list[str]
    node: str


class _Request:
    """Frames that somebody asked for, and what has come of their features; they may be parts of several batches."""

    def __init__(self, num_frames: int) -> None:
        self.done: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._missing = num_frames
        self._features: list[np.ndarray] = []

    def take(self, features: np.ndarray | Exception) -> None:
        """Those of its next frames, or why there are none."""
        if self.done.done():  # its worker has died meanwhile, or an earlier part failed
            return
        if isinstance(features, Exception):
            self.done.set_exception(features)
            return
        self._features.append(features)
        self._missing -= len(features)
        if not self._missing:
            self.done.set_result(np.concatenate(self._features))


_Part: TypeAlias = tuple[_Request, np.ndarray]


class SharedModel:
    """The model, in an actor. Requests for frames that come while it is busy are encoded together.

    While the device computes one batch the next is gathered and given to it, if there are frames enough to fill one:
    so the device goes from one to the next without waiting for this process.
    """

    def __init__(self, name: str, device: str, num_threads: int) -> None:
        self._error = ""
        # Always the same one launches: what cuDNN has planned for a size of batch, it keeps for each thread.
        self._launcher, self._fetcher, self._fuser = (ThreadPoolExecutor(max_workers=1) for _ in range(3))
        self._waiting: deque[_Part] = deque()
        self._num_waiting = self._num_launched = 0  # frames, batches
        self._serving: set[asyncio.Future[None]] = set()
        self._on_gpu = device != "cpu"
        self._buffers: deque[np.ndarray] = deque()
        self._fusing: Any = None  # the GPU's queue
        self._busy_s, self._busy_since, self._began = 0.0, 0.0, 0.0
        try:
            self._model = self._load(name, device, num_threads)
        except ModelError as error:
            self._error = str(error)
            return
        if device != "cpu":
            self._launcher.submit(self._warm_up)

    def _load(self, name: str, device: str, num_threads: int) -> FrameModel:
        return LocalModel(load_model(name, device=device, num_threads=num_threads), fuses_beside=self._on_gpu)

    def _warm_up(self) -> None:
        """Meets every size of batch once, while the workers start: at the first frames it would be seconds each."""
        side = self._model.frame_size_px
        for size in GPU_BATCH_SIZES:
            self._model.encode_frames(np.zeros((size, side, side, 3), np.uint8))()

    async def facts(self) -> ModelFacts | str:
        """What the workers have to know, or why the model could not be loaded."""
        if self._error:
            return self._error
        return ModelFacts(
            frame_size_px=self._model.frame_size_px,
            label_names=self._model.label_names,
            node=ray.get_runtime_context().get_node_id(),
        )

    async def encode_frames(self, frames: np.ndarray) -> np.ndarray:
        """Frames uint8 [N, S, S, 3] -> features as stored, float16 [N, K, D]."""
        if self._error:  # it was started again, and could not be loaded a second time
            raise WorkerError(self._error)
        self._began = self._began or time.perf_counter()
        request = _Request(len(frames))
        self._waiting.append((request, frames))
        self._num_waiting += len(frames)
        self._launch_what_may()
        return await request.done

    async def fuse(self, *moments: Any) -> tuple[np.ndarray, np.ndarray]:
        """See `FrameModel.fuse`."""
        return await asyncio.get_running_loop().run_in_executor(self._fuser, self._fuse, *moments)

    def _fuse(self, *moments: Any) -> tuple[np.ndarray, np.ndarray]:
        """On a GPU in a queue of its own: behind the frames a worker would wait for two batches of others.

        In one queue and one thread, as PyTorch keeps memory, and cuBLAS 32 MiB, for each of both.
        """
        if not self._on_gpu:
            return self._model.fuse(*moments)
        import torch  # the workers that only decode do without

        self._fusing = self._fusing or torch.cuda.Stream(priority=-1)
        with torch.cuda.stream(self._fusing):
            return self._model.fuse(*moments)

    async def account(self) -> Spent:
        """What it did with its time since the first frames came."""
        idle_s = time.perf_counter() - self._began - self._busy_s if self._began else 0.0
        name = ray.get_runtime_context().get_actor_id() or ""
        return Spent(worker=name, kind="model", seconds={"encode": self._busy_s, "idle": idle_s})

    def _launch_what_may(self) -> None:
        """Anything where the device has nothing to do; where it has one batch, a second that nothing fills up."""
        while self._num_waiting and self._num_launched < (2 if self._num_waiting >= _MIN_FRAMES_AHEAD else 1):
            self._busy_since = self._busy_since if self._num_launched else time.perf_counter()
            self._num_launched += 1
            serving = asyncio.ensure_future(self._serve(self._next_batch()))
            self._serving.add(serving)  # nobody else holds it
            serving.add_done_callback(self._serving.discard)

    async def _serve(self, batch: Sequence[_Part]) -> None:
        run = asyncio.get_running_loop().run_in_executor
        features: np.ndarray | Exception
        try:
            fetch = await run(self._launcher, self._launch, [frames for _, frames in batch])
            features = await run(self._fetcher, fetch)
        except Exception as error:  # each of the callers gets it
            features = error
        self._num_launched -= 1
        if not self._num_launched:
            self._busy_s += time.perf_counter() - self._busy_since
        self._launch_what_may()
        start = 0
        for request, frames in batch:
            request.take(features if isinstance(features, Exception) else features[start : start + len(frames)])
            start += len(frames)

    def _next_batch(self) -> list[_Part]:
        """The first of the frames that wait; of more than 32 a multiple of that, as any others would be filled up."""
        num_frames = min(self._num_waiting, MAX_FRAMES_AT_ONCE)
        missing = num_frames = num_frames // _MIN_FRAMES_AHEAD * _MIN_FRAMES_AHEAD or num_frames
        self._num_waiting -= num_frames
        batch: list[_Part] = []
        while missing:
            request, frames = self._waiting.popleft()
            if len(frames) > missing:
                self._waiting.appendleft((request, frames[missing:]))
            batch.append((request, frames[:missing]))
            missing -= len(batch[-1][1])
        return batch

    def _launch(self, parts: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
        """Gives the device all of these frames; what is returned waits for the features."""
        num_frames = sum(map(len, parts))
        buffer = self._buffers.popleft() if self._buffers else self._new_buffer()
        finish = self._model.encode_frames(np.concatenate(parts, out=buffer[:num_frames]))

        def fetch() -> np.ndarray:
            features = finish().astype(STORED, copy=False)
            self._buffers.append(buffer)
            return features

        return fetch

    def _new_buffer(self) -> np.ndarray:
        """For one batch after the other, as filling memory that is new to a process takes several times as long.

        What is pinned, a GPU reads by itself, while this process does something else.
        """
        side = self._model.frame_size_px
        shape = (MAX_FRAMES_AT_ONCE, side, side, 3)
        if not self._on_gpu:
            return np.empty(shape, np.uint8)
        import torch

        return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()


def start_shared_models(settings: EncoderSettings, device: str, count: int) -> list[Any]:
    """Starts actors, one a GPU, and waits for nothing: those who ask them do, and start meanwhile.

    Args:
        settings: say which model, and with how many threads on CPUs.
        device: "cpu" or "cuda".
        count: how many; 0 for none.
    """
    # No core is reserved: where the workers take them all, the actor still has to start.
    options = {"num_cpus": 0, "num_gpus": int(device == "cuda"), "max_restarts": _MAX_RESTARTS, "max_task_retries": -1}
    start: Any = ray.remote(SharedModel).options(**options).remote
    return [start(settings.model, device, settings.num_threads) for _ in range(count)]
