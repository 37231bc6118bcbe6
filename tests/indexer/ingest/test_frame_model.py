"""A model in the hands of several threads."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from indexer.ingest.frame_model import LocalModel


class Busy:
    """A model that notes whether it was used while it was in use."""

    frame_size_px, label_names = 4, ("x",)

    def __init__(self) -> None:
        self.users = self.most_users = 0

    def _use(self, *_: object) -> torch.Tensor:
        self.users += 1
        self.most_users = max(self.most_users, self.users)
        time.sleep(0.005)
        self.users -= 1
        return torch.zeros(1, 1)

    encode_frames = _use

    def encode_and_classify(self, *_: object) -> tuple[torch.Tensor, torch.Tensor]:
        return self._use(), self._use()


def test_threads_take_turns_with_a_model():
    busy = Busy()
    model = LocalModel(busy)
    nothing = np.zeros((1, 1, 1, 1), np.float32)

    def use(number: int) -> None:
        model.encode_frames(nothing)() if number % 2 else model.fuse(nothing, nothing, nothing, [None])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(12)))
    assert busy.most_users == 1


def test_moments_do_not_wait_for_frames_that_fill_the_queue_of_a_gpu():
    full, nothing = threading.Event(), np.zeros((1, 1, 1, 1), np.float32)

    class WithAQueue(Busy):
        def encode_frames(self, *_: object) -> torch.Tensor:
            assert full.wait(20)
            return torch.zeros(1, 1)

    model = LocalModel(WithAQueue(), fuses_beside=True)
    with ThreadPoolExecutor(1) as pool:
        features = pool.submit(model.encode_frames, nothing)
        model.fuse(nothing, nothing, nothing, [None])
        assert not features.done()
        full.set()
        assert features.result()().shape == (1, 1)
