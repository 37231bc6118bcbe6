"""Heads: from the states of the fusion tower, or from a video's vector, to what an objective or a class needs.

Shapes: M places, W = width of the tower, E = width of the text encoder, V tokens or visual words, B videos, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import ModelError
from model.text_encoder import TokenStates

_INIT_STD = 0.02  # BERT's
_LAYER_NORM_EPS = 1e-12


class MaskedTextHead(nn.Module):
    """Which token was hidden: a transform to the width of BERT, and BERT's own word embeddings as the decoder.

    Source: Devlin et al., "BERT", 2019, as released: dense, GELU, LayerNorm, tied decoder with a bias of its own.
    """

    def __init__(self, width: int, word_embedding: nn.Embedding) -> None:
        super().__init__()
        self.transform = nn.Linear(width, word_embedding.embedding_dim)
        self.norm = nn.LayerNorm(word_embedding.embedding_dim, eps=_LAYER_NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(word_embedding.num_embeddings))
        self._tied = (word_embedding,)  # in a tuple, so that its weights are not counted as the head's own

    def forward(self, states: Tensor) -> Tensor:
        """Float [M, W] -> logits [M, V]."""
        return F.linear(self.norm(F.gelu(self.transform(states))), self._tied[0].weight, self.bias)


class VisualWordHead(nn.Module):
    """Which visual word was hidden: a transform as in the text head, and a decoder of its own."""

    def __init__(self, width: int, num_words: int) -> None:
        super().__init__()
        self.transform = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=_LAYER_NORM_EPS)
        self.decoder = nn.Linear(width, num_words)

    def forward(self, states: Tensor) -> Tensor:
        """Float [M, W] -> logits [M, V]."""
        logits: Tensor = self.decoder(self.norm(F.gelu(self.transform(states))))
        return logits


class AlignmentHead(nn.Module):
    """Whether a text belongs to its video, from the state of `[CLS]`: BERT's pooler, and one number.

    Source: Sun et al., "VideoBERT", 2019, section 3.2, linguistic-visual alignment.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pooler = nn.Linear(width, width)
        self.output = nn.Linear(width, 1)

    def forward(self, cls_states: Tensor) -> Tensor:
        """Float [B, W] -> logits [B], above 0 where the text is believed to belong."""
        return self.output(self.pooler(cls_states).tanh())[:, 0]


class ClassificationHead(nn.Module):
    """Classes of a video, from its vector of the joint space or from the pooled states of the tower.

    The logits are scores before any sigmoid or softmax: `model.objectives.multi_label_loss` or `F.cross_entropy` takes
    them as they are, `probabilities` turns them into numbers from 0 to 1.

    Attributes:
        multi_label: a video may have any number of classes (sigmoid), or has exactly one (softmax).
    """

    def __init__(self, width: int, num_classes: int, *, multi_label: bool, dropout: float = 0.1) -> None:
        """Width is that of the input.

        Raises:
            ModelError: fewer than one class (two, where a video has exactly one), or dropout out of range.
        """
        super().__init__()
        fewest = 1 if multi_label else 2
        if num_classes < fewest:
            raise ModelError(f"num_classes must be at least {fewest}, got {num_classes!r}")
        if not 0 <= dropout < 1:
            raise ModelError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        self.multi_label = multi_label
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Float [B, W] -> logits [B, C]."""
        logits: Tensor = self.output(self.dropout(inputs))
        return logits

    def probabilities(self, inputs: Tensor) -> Tensor:
        """Float [B, W] -> [B, C], each 0 to 1; rows sum to 1 unless `multi_label`."""
        logits = self(inputs)
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)


def mean_state(tokens: TokenStates) -> Tensor:
    """Mean of the real slots of the tower, an input for `ClassificationHead`: states [B, S, W] -> [B, W]."""
    total = tokens.states.masked_fill(~tokens.mask[:, :, None], 0.0).sum(dim=1)
    return total / tokens.mask.sum(dim=1, keepdim=True).clamp(min=1)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Fresh weights as BERT's: matrices from a normal distribution, biases 0, LayerNorms 1."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=_INIT_STD, generator=generator)
            nn.init.zeros_(part.bias)
