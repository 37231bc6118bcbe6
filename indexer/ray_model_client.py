"""What a decoding worker has in place of a model of its own: it asks the `SharedModel` actors.

A worker goes on decoding while its frames are encoded, but never has more than 16 MiB of them under way: that is the
back-pressure, and the bound on memory.
"""

from __future__ import annotations

import functools
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayActorError, RayTaskError

from indexer.errors import WorkerError
from indexer.ingest.frame_model import FrameModel
from indexer.ray_shared_model import ModelFacts
from model.errors import ModelError

# Frames of one request, and of all that a worker has under way, in Ray's object store.
_REQUEST_BYTES = 4 << 20
_MAX_BYTES_UNDER_WAY = 16 << 20
_DIED = "the model's process died too often: perhaps the GPU's memory is short"


class SharedModelClient(FrameModel):
    """What a worker has in place of a model of its own.

    Args:
        actors: of `SharedModel`; those on this worker's node are asked, or all if there are none.

    Attributes:
        lost: set once an actor cannot be started any more: nothing can be encoded.

    Raises:
        WorkerError: one could not be loaded.
    """

    is_elsewhere = True

    def __init__(self, actors: Sequence[Any]) -> None:
        try:
            told = ray.get([actor.facts.remote() for actor in actors])
        except RayActorError as error:
            raise WorkerError(_DIED) from error
        if problem := next((fact for fact in told if isinstance(fact, str)), None):
            raise WorkerError(problem)
        facts: list[ModelFacts] = told
        here = ray.get_runtime_context().get_node_id()
        near = [actor for actor, fact in zip(actors, facts, strict=True) if fact.node == here]
        self._actors = near or list(actors)
        self._next = random.randrange(len(self._actors))
        self._under_way: deque[tuple[Any, int]] = deque()
        self._num_bytes = 0
        self.frame_size_px, self.label_names = facts[0].frame_size_px, facts[0].label_names
        self.lost = ""

    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """See `FrameModel.encode_frames`. Waits while more are under way than may be."""
        step = max(1, _REQUEST_BYTES // frames[0].nbytes)
        asked = [self._send(frames[start : start + step]) for start in range(0, len(frames), step)]
        return functools.cache(lambda: np.concatenate([self._result(request) for request in asked]))

    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        vectors, probabilities = self._result(self._actor().fuse.remote(features, mask, times_s, list(texts)))
        return vectors, probabilities

    def _send(self, frames: np.ndarray) -> Any:
        while self._under_way and self._num_bytes + frames.nbytes > _MAX_BYTES_UNDER_WAY:
            oldest, num_bytes = self._under_way.popleft()
            ray.wait([oldest])
            self._num_bytes -= num_bytes
        request = self._actor().encode_frames.remote(frames)
        self._under_way.append((request, frames.nbytes))
        self._num_bytes += frames.nbytes
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
