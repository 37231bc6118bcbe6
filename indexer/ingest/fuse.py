"""From the frame features of moments to their vectors and labels: the part of encoding that needs no picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from indexer.ingest.frame_model import FrameModel

_NUM_LABELS = 5
_MIN_LABEL_SCORE = 0.02
# Features are stored, and used, as little-endian float16.
STORED = np.dtype("<f2")


def fuse_moments(
    model: FrameModel, features: Sequence[np.ndarray], times_s: Sequence[np.ndarray], transcripts: Sequence[str | None]
) -> list[dict[str, Any]]:
    """What the rows of some moments get from the model: see `pad_frames`. Alike to the last bit for the same moments
    together."""
    embeddings, probabilities = model.fuse(*pad_frames(features, times_s), transcripts)
    return [
        {"embedding": vector, "labels": labels_seen(seen, model.label_names)}
        for vector, seen in zip(embeddings, probabilities, strict=True)
    ]


def labels_seen(probabilities: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """The few most probable of C classes as `schema.LABELS_TYPE` holds them: float [C] and C names."""
    best = np.argsort(-probabilities, kind="stable")[:_NUM_LABELS]
    return [{"label": names[c], "score": float(probabilities[c])} for c in best if probabilities[c] >= _MIN_LABEL_SCORE]


def pad_frames(
    features: Sequence[np.ndarray], times_s: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moments of different lengths as one batch for `VideoBert.encode_video`.

    Args:
        features: of each moment [T, K, D], as stored.
        times_s: of each moment [T], seconds from its start.

    Returns:
        Features float32 [B, T, K, D], mask bool [B, T] and times float32 [B, T], T being that of the longest.
    """
    longest = max(len(frames) for frames in features)
    padded = np.zeros((len(features), longest, *features[0].shape[1:]), dtype=np.float32)
    mask = np.zeros((len(features), longest), dtype=bool)
    times = np.zeros((len(features), longest), dtype=np.float32)
    for i, (frames, at_s) in enumerate(zip(features, times_s, strict=True)):
        padded[i, : len(frames)] = frames
        mask[i, : len(frames)] = True
        times[i, : len(frames)] = at_s
    return padded, mask, times
