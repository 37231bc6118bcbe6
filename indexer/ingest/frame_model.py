"""What encoding a video needs of a model, whether it runs in this process or in another one."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from model.video_text_model import VideoTextModel


class FrameModel(ABC):
    """A model as `VideoEncoder` uses it. Shapes and symbols as in `model.video_text_model`.

    Attributes:
        frame_size_px: S.
        label_names: the C class names.
    """

    frame_size_px: int
    label_names: list[str]

    @abstractmethod
    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        """Frames uint8 [N, S, S, 3]; what is returned gives their features, float [N, K, D], whenever called."""

    @abstractmethod
    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Moments -> vectors [B, E] and class probabilities [B, C]; see `VideoTextModel.encode_video`."""


class LocalModel(FrameModel):
    """A model of this process. Frames are encoded at once: the cores that it would wait for are the ones it uses.

    Threads take turns: each use keeps all of the model's cores busy, and some tokenisers serve one caller only.
    """

    def __init__(self, model: VideoTextModel) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.frame_size_px, self.label_names = model.frame_size_px, list(model.label_names)

    def encode_frames(self, frames: np.ndarray) -> Callable[[], np.ndarray]:
        with self._lock:
            features: np.ndarray = self._model.encode_frames(frames).cpu().numpy()
        return lambda: features

    def fuse(
        self, features: np.ndarray, mask: np.ndarray, times_s: np.ndarray, texts: Sequence[str | None]
    ) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            vectors = self._model.encode_video(features, mask, times_s, texts)
            return vectors.cpu().numpy(), self._model.classify(features, mask).cpu().numpy()
