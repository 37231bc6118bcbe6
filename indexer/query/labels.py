"""Zero-shot labels: how well each of any list of labels fits a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class TextEncoder(Protocol):
    """Texts to vectors of length 1, as an array or tensor [N, dim]."""

    def encode(self, texts: Sequence[str]) -> Any: ...


def zero_shot(
    embeddings: np.ndarray, labels: Sequence[str], text_encoder: TextEncoder, *, prompt: str, temperature: float
) -> np.ndarray:
    """Softmax over the labels of cosine / temperature (Radford et al. 2021, section 3.1), on stored vectors.

    Args:
        embeddings: float32 [N, dim], length 1: fused vectors of moments.
        labels: L labels.
        text_encoder: of the model that made the embeddings.
        prompt: text with {label} in it that each label is put into.
        temperature: spreads the cosines, which lie close together.

    Returns:
        float32 [N, L]; each row adds up to 1. One label alone always scores 1.
    """
    texts = np.asarray(text_encoder.encode([prompt.format(label=label) for label in labels]), dtype=np.float32)
    logits = embeddings @ texts.T / temperature
    logits -= logits.max(axis=1, keepdims=True)
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True)
