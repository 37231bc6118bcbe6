"""One model that many decoding workers share: how a GPU is fed.

    decoding worker (a core) ──uint8 frames, a few megabytes at a time──▶ SharedModel (a GPU) ──features──▶ worker

What waits while the GPU computes is its next batch, whatever videos it comes from: so batches grow with the number of
workers, and nobody waits for one to fill up. A worker goes on decoding while its frames are encoded, but never has more
than a few requests under way: that is the back-pressure, and the bound on memory. All else, moments, files and commits,
is done by the worker, as without a GPU.
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from indexer.batches import EncoderSettings
from indexer.errors import WorkerError
from indexer.ingest.frame_model import FrameModel, LocalModel
from indexer.ingest.fuse import STORED
from indexer.phases import Spent
from model.errors import ModelError
from model.weights import load_model

# Frames of one request; with the requests under way, what each worker may hold in Ray's object store.
_REQUEST_BYTES = 4 << 20
_MAX_UNDER_WAY = 3
# Frames that the model is given at once. More keep a GPU no busier.
MAX_FRAMES_AT_ONCE = 1024
# A process that a GPU's driver killed is started again so often.
_MAX_RESTARTS = 3
_DIED = "the model's process died too often: perhaps the GPU's memory is short"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a worker has to know of the model, see `VideoTextModel`, and the node that it is on."""

    frame_size_px: int
    label_names: list[str]
    node: str


class SharedModel:
    """The model, in an actor. Requests for frames that come while it is busy are encoded together."""

    def __init__(self, name: str, device: str, num_threads: int) -> None:
        self._error = ""
        # Always the same one: what cuDNN has planned for a size of batch, it keeps for each thread.
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._waiting: deque[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._busy_s, self._began = 0.0, 0.0
        try:
            self._model = LocalModel(load_model(name, device=device, num_threads=num_threads))
        except ModelError as error:
            self._error = str(error)
            return
        if device != "cpu":
            self._thread.submit(self._warm_up)

    def _warm_up(self) -> None:
        """Meets every size of batch once, while the workers start: at the first frames it would be seconds each."""
        from model.runtime import GPU_BATCH_SIZES  # PyTorch is nothing for the workers that only decode

        side = self._model.frame_size_px
        for size in GPU_BATCH_SIZES:
            self._model.encode_frames(np.zeros((size, side, side, 3), np.uint8))

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
        done: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        self._waiting.append((frames, done))
        if self._serving is None or self._serving.done():
            self._serving = asyncio.ensure_future(self._serve())
        return await done

    async def fuse(self, *moments: Any) -> tuple[np.ndarray, np.ndarray]:
        """See `FrameModel.fuse`."""
        return await asyncio.to_thread(self._model.fuse, *moments)

    async def account(self) -> Spent:
        """What it did with its time since the first frames came."""
        idle_s = time.perf_counter() - self._began - self._busy_s if self._began else 0.0
        name = ray.get_runtime_context().get_actor_id() or ""
        return Spent(worker=name, kind="model", seconds={"encode": self._busy_s, "idle": idle_s})

    async def _serve(self) -> None:
        while self._waiting:
            requests = self._next_requests()
            try:
                features = await asyncio.get_running_loop().run_in_executor(
                    self._thread, self._encode, [frames for frames, _ in requests]
                )
            except Exception as error:  # each of the callers gets it
                for _, done in requests:
                    if not done.done():  # its worker may have died meanwhile
                        done.set_exception(error)
                continue
            for (_, done), part in zip(requests, features, strict=True):
                if not done.done():
                    done.set_result(part)

    def _next_requests(self) -> list[tuple[np.ndarray, asyncio.Future[np.ndarray]]]:
        requests = [self._waiting.popleft()]
        num_frames = len(requests[0][0])
        while self._waiting and num_frames + len(self._waiting[0][0]) <= MAX_FRAMES_AT_ONCE:
            num_frames += len(self._waiting[0][0])
            requests.append(self._waiting.popleft())
        return requests

    def _encode(self, requests: Sequence[np.ndarray]) -> list[np.ndarray]:
        started = time.perf_counter()
        features = self._model.encode_frames(np.concatenate(requests))().astype(STORED)
        self._busy_s += time.perf_counter() - started
        return np.split(features, np.cumsum([len(frames) for frames in requests])[:-1])


def start_shared_models(settings: EncoderSettings, device: str, count: int) -> list[Any]:
    """Starts actors, one a GPU, and waits until they are loaded.

    Args:
        settings: say which model, and with how many threads on CPUs.
        device: "cpu" or "cuda".
        count: how many; 0 for none.

    Raises:
        WorkerError: one could not be loaded.
    """
    # No core is reserved: where the workers take them all, the actor still has to start.
    options = {"num_cpus": 0, "num_gpus": int(device == "cuda"), "max_restarts": _MAX_RESTARTS, "max_task_retries": -1}
    start: Any = ray.remote(SharedModel).options(**options).remote
    actors: list[Any] = [start(settings.model, device, settings.num_threads) for _ in range(count)]
    try:
        facts = ray.get([actor.facts.remote() for actor in actors])
    except RayActorError as error:
        raise WorkerError(f"the model's process died at its start on {device!r}: perhaps memory is short") from error
    if problem := next((fact for fact in facts if isinstance(fact, str)), None):
        raise WorkerError(f"the workers could not start: {problem}")
    return actors


class SharedModelClient(FrameModel):
    """What a worker has in place of a model of its own.

    Args:
        actors: of `SharedModel`; those on this worker's node are asked, or all if there are none.

    Attributes:
        lost: set once an actor cannot be started any more: nothing can be encoded.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        try:
            facts = ray.get([actor.facts.remote() for actor in actors])
        except RayActorError as error:
            raise WorkerError(_DIED) from error
        here = ray.get_runtime_context().get_node_id()
        near = [actor for actor, fact in zip(actors, facts, strict=True) if fact.node == here]
        self._actors = near or list(actors)
        self._next = random.randrange(len(self._actors))
        self._under_way: deque[Any] = deque()
        self.frame_size_px, self.label_names = facts[0].frame_size_px, facts[0].label_names
        self.lost = ""

    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """See `FrameModel.encode_frames`. Waits while too many frames are under way."""
        step = max(1, _REQUEST_BYTES // frames[0].nbytes)
        asked = [self._send(frames[start : start + step]) for start in range(0, len(frames), step)]
        return functools.cache(lambda: np.concatenate([self._result(request) for request in asked]))

    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        vectors, probabilities = self._result(self._actor().fuse.remote(features, mask, times_s, list(texts)))
        return vectors, probabilities

    def _send(self, frames: np.ndarray) -> Any:
        while len(self._under_way) >= _MAX_UNDER_WAY:
            ray.wait([self._under_way.popleft()])
        request = self._actor().encode_frames.remote(frames)
        self._under_way.append(request)
        return request

    def _actor(self) -> Any:
        self._next = (self._next + 1) % len(self._actors)
        return self._actors[self._next]

    def _result(self, request: Any) -> Any:
        try:
            return ray.get(request)
        except RayTaskError as error:
            if isinstance(error.cause, WorkerError):
                self.lost = str(error.cause)
            raise ModelError(f"the model failed: {error.cause}") from error
        except RayActorError as error:
            self.lost = _DIED
            raise ModelError(self.lost) from error
