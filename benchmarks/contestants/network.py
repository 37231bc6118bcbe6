"""The frame encoder of `mini` as a plain PyTorch module: what somebody would put into a pipeline of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from model.weights import load_videobert

FRAME_SIZE_PX = 224


class Network:
    """EfficientNet-Lite0 in PyTorch, in evaluation mode.

    Args:
        num_threads: of PyTorch in this process.
    """

    def __init__(self, num_threads: int = 1) -> None:
        torch.set_num_threads(num_threads)
        self._module = load_videobert("mini", runtime="torch").frame_encoder.eval()

    @torch.inference_mode()
    def __call__(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Frames uint8 [N, S, S, 3] -> features float32 [N, D]."""
        features: NDArray[np.float32] = self._module(torch.from_numpy(frames)).mean(dim=1).numpy()
        return features


def in_batches(frames: Iterable[NDArray[np.uint8]], size: int = 32) -> Iterator[NDArray[np.uint8]]:
    """Frames uint8 [S, S, 3] -> stacks uint8 [at most `size`, S, S, 3]."""
    frames = iter(frames)
    while batch := list(itertools.islice(frames, size)):
        yield np.stack(batch)
