"""What encoding a video needs of a model, whether it runs in this process or in another one."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from model.video_text_model import VideoTextModel


class FrameModel(ABC):
    """A model as `VideoEncoder` uses it. Shapes and symbols as in `model.video_text_model`.

    Attributes:
        frame_size_px: S.
        label_names: the C class names.
        is_elsewhere: it computes in another process, so that whoever waits for it may do something else meanwhile.
    """

    frame_size_px: int
    label_names: list[str]
    is_elsewhere = False

    @abstractmethod
    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """Frames uint8 [N, S, S, 3]; what is returned gives their features, float [N, K, D], whenever called."""

    @abstractmethod
    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Moments -> vectors [B, E] and class probabilities [B, C]; see
        `VideoTextModel.encode_and_classify`."""


class LocalModel(FrameModel):
    """A model of this process. Frames are encoded at once: the cores that it would wait for are the ones it uses.

    Threads take turns: each use keeps all of the model's cores busy, and some tokenisers serve one caller only.

    Args:
        model: what computes.
        fuses_beside: moments do not wait for frames, as on a GPU: whoever gives it more kernels than its queue holds
            waits there until it has computed some.
    """

    def __init__(self, model: VideoTextModel, *, fuses_beside: bool = False) -> None:
        self._model = model
        self._encoding = threading.Lock()
        self._fusing = threading.Lock() if fuses_beside else self._encoding
        self.frame_size_px, self.label_names = model.frame_size_px, list(model.label_names)

    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        with self._encoding:
            features = self._model.encode_frames(frames)
        if features.is_cuda:
            return _on_its_way(features)
        there: np.ndarray = features.numpy()
        return lambda: there

    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._fusing:
            vectors, probabilities = self._model.encode_and_classify(features, mask, times_s, texts)
            return vectors.cpu().numpy(), probabilities.cpu().numpy()


def _on_its_way(features: Tensor) -> Callable[[], np.ndarray]:
    """From a GPU, which has still to compute them: they are copied when it has, and nobody waits for that here.

    Nor do they wait for what the GPU is given later, as the copy is in its queue before that.
    """
    import torch

    there = features.half().to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event()
    copied.record()

    def fetch() -> np.ndarray:
        copied.synchronize()
        return there.numpy()

    return fetch
