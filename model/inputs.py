"""Checks of what a model is given, the same for every model.

Shapes: N frames, S = side of a frame in pixels, K tokens per frame, D numbers per token, B videos, T frames of the
longest, E = length of the vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import InputError

Array = Tensor | NDArray[np.generic]


class VideoInputs(NamedTuple):
    """A checked batch of videos, on the model's device.

    Attributes:
        features: float32 [B, T, K, D].
        frame_mask: bool [B, T].
        times_s: float32 [B, T].
        texts: B texts, "" for a video without one; each item has a frame or a text.
    """

    features: Tensor
    frame_mask: Tensor
    times_s: Tensor
    texts: list[str]


def as_tensor(values: Array) -> Tensor:
    """Shares memory where it can; PyTorch knows no read-only memory, such as Ray's and Arrow's, so that is copied."""
    if isinstance(values, np.ndarray) and not values.flags.writeable:
        values = values.copy()
    return torch.as_tensor(values)


def check_frames(frames: Array, side_px: int) -> Tensor:
    """Frames as a uint8 tensor [N, S, S, 3].

    Raises:
        InputError: another shape or dtype.
    """
    frames = as_tensor(frames)
    if frames.dtype != torch.uint8 or frames.ndim != 4 or tuple(frames.shape[1:]) != (side_px, side_px, 3):
        raise InputError(
            f"frames must be uint8 [N, {side_px}, {side_px}, 3], got {_dtype(frames)} {list(frames.shape)}; "
            "resize them first"
        )
    return frames


def check_features(
    features: Array, frame_mask: Array, feature_shape: tuple[int, int], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Features float32 [B, T, K, D] and mask bool [B, T], on `device`.

    Raises:
        InputError: shapes disagree.
    """
    features, mask = as_tensor(features), as_tensor(frame_mask)
    if features.ndim != 4 or tuple(features.shape[2:]) != feature_shape:
        raise InputError(f"features must be [B, T, *{list(feature_shape)}], got {list(features.shape)}")
    if mask.dtype != torch.bool or mask.shape != features.shape[:2]:
        raise InputError(f"frame_mask must be bool {list(features.shape[:2])}, got {_dtype(mask)} {list(mask.shape)}")
    return features.to(device, torch.float32), mask.to(device)


def check_videos(
    features: Array,
    frame_mask: Array,
    frame_times_s: Array,
    texts: Sequence[str | None] | None,
    feature_shape: tuple[int, int],
    device: torch.device,
) -> VideoInputs:
    """What `encode_video` takes.

    Raises:
        InputError: shapes or lengths disagree, or an item has neither frames nor text.
    """
    features, frame_mask = check_features(features, frame_mask, feature_shape, device)
    times_s = as_tensor(frame_times_s).to(device, torch.float32)
    if times_s.shape != frame_mask.shape:
        raise InputError(f"frame_times_s must be {list(frame_mask.shape)} as frame_mask, got {list(times_s.shape)}")
    return VideoInputs(features, frame_mask, times_s, _check_texts(texts, frame_mask))


def check_embeddings(embeddings: Array, width: int, device: torch.device) -> Tensor:
    """Vectors of videos, float32 [B, E] on `device`.

    Raises:
        InputError: they have another length.
    """
    videos = as_tensor(embeddings).to(device, torch.float32)
    if videos.ndim != 2 or videos.shape[1] != width:
        raise InputError(f"video_embeddings must be [B, {width}], got {list(videos.shape)}")
    return videos


def check_strings(texts: Sequence[str]) -> list[str]:
    """The texts as a list.

    Raises:
        InputError: `texts` is one string, or holds something else than strings.
    """
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise InputError(f"texts must be a sequence of strings, got {texts!r:.80}")
    return list(texts)


def _check_texts(texts: Sequence[str | None] | None, frame_mask: Tensor) -> list[str]:
    known = [(text or "").strip() for text in (texts if texts is not None else [None] * len(frame_mask))]
    if len(known) != len(frame_mask):
        raise InputError(f"texts must hold one text (or None) a video, {len(frame_mask)}, got {len(known)}")
    for item, (text, has_frames) in enumerate(zip(known, frame_mask.any(dim=1).tolist(), strict=True)):
        if not text and not has_frames:
            raise InputError(f"each item needs a frame or a text, item {item} has neither")
    return known


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
