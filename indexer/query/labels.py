"""Zero-shot labels: how well each of any list of labels fits a moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

# Cosines of a moment with texts lie close together; this spreads them so that a clear winner scores near 1.
TEMPERATURE = 0.05
PROMPT = "a video of {label}"


class TextEncoder(Protocol):
    def encode(self, texts: Sequence[str]) -> Any: ...


def zero_shot(embeddings: np.ndarray, labels: Sequence[str], text_encoder: TextEncoder) -> np.ndarray:
    """Softmax over the labels of cosine / temperature (as Radford et al. 2021, section 3.1).

    Args:
        embeddings: float32 [N, dim], length 1: fused vectors of moments.
        labels: L labels; each is put into the prompt "a video of LABEL".
        text_encoder: of the model that made the embeddings.

    Returns:
        float32 [N, L]; each row adds up to 1. One label alone always scores 1.
    """
    texts = np.asarray(text_encoder.encode([PROMPT.format(label=label) for label in labels]), dtype=np.float32)
    logits = embeddings @ texts.T / TEMPERATURE
    logits -= logits.max(axis=1, keepdims=True)
    scores = np.exp(logits)
    return scores / scores.sum(axis=1, keepdims=True)
