"""ConSE: class probabilities to a vector of the text space, without any training.

Shapes: B items, T frames, C classes, E = embedding width.

Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2014, equation 4.
Departures, each better both on video clips and on photographs with captions: a class is embedded by its names and
dictionary definition rather than its name; all classes take part rather than the top ten, with probabilities spread
out by a temperature; the mean label embedding is taken out, as what all definitions share says nothing about a video.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def centred(label_embeddings: Tensor) -> Tensor:
    """The embeddings without their mean: float [C, E] -> [C, E]."""
    return label_embeddings - label_embeddings.mean(dim=0)


def conse_embedding(probabilities: Tensor, centred_labels: Tensor) -> Tensor:
    """Probability-weighted mean of the centred label embeddings, scaled to length 1.

    Args:
        probabilities: float [B, C], rows summing to 1, or all zero.
        centred_labels: float [C, E], see `centred`.

    Returns:
        float [B, E] of length 1; zeros where the probabilities are.
    """
    return F.normalize(probabilities @ centred_labels, dim=1)


def class_probabilities(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Logits float [..., C] -> [..., C], summing to 1 where C > 0. A temperature above 1 spreads them out."""
    return (logits / temperature).softmax(dim=-1)


def mean_over_frames(values: Tensor, frame_mask: Tensor) -> Tensor:
    """Mean of the real frames: float [B, T, C] and bool [B, T] -> [B, C]; zeros for an item without frames."""
    total = values.masked_fill(~frame_mask[:, :, None], 0.0).sum(dim=1)
    return total / frame_mask.sum(dim=1, keepdim=True).clamp(min=1)
