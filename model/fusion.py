"""The cross-modal Transformer: text and video tokens attend to each other in one sequence.

    [CLS] text text ... [>] video video ... [SEP]

Shapes: B items, L text slots, T frames, K tokens per frame, D numbers per video token, S = 3 + L + T * K slots in all,
W = width of the tower, E = `embedding_dim`. Slots without a token are masked, so a padded batch gives what each item
gives alone, and leaving out one modality altogether is the same tower: the three regimes of the paper.

Source: Sun et al., "VideoBERT", 2019, section 3.2. Departures: video tokens are continuous features rather than
visual words, and frames carry a time embedding in seconds rather than a position, so that any sampling rate will do.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.config import VideoBertConfig
from model.text_encoder import TokenStates
from model.transformer import TransformerStack, sinusoidal_encoding

_INIT_STD = 0.02  # BERT's
_CLS, _SWITCH, _SEP = 0, 1, 2  # rows of the special tokens; _SWITCH is the paper's [>]
_TEXT, _VIDEO = 0, 1  # rows of the modality embeddings


class FusionOutput(NamedTuple):
    """What the tower makes of a batch.

    Attributes:
        residual: float [B, E], read off at `[CLS]`.
        states: float [B, S, W], of every slot.
        mask: bool [B, S], True where a slot holds a token.
        attention: one float [B, H, S, S] for each layer, or an empty list if not asked for.
    """

    residual: Tensor
    states: Tensor
    mask: Tensor
    attention: list[Tensor]


class FusionTower(nn.Module):
    """Projects both modalities to one width, adds modality and time embeddings, and runs the stack."""

    def __init__(self, config: VideoBertConfig) -> None:
        super().__init__()
        transformer = config.fusion.transformer
        self.max_period_s = config.fusion.max_period_s
        self.special_tokens = nn.Parameter(torch.empty(3, transformer.width))
        self.modality_embedding = nn.Embedding(2, transformer.width)
        self.text_projection = _projection(config.embedding_dim, transformer.width)
        self.video_projection = _projection(config.frames.feature_dim, transformer.width)
        self.frame_token_embedding = nn.Parameter(torch.empty(config.frames.num_tokens, transformer.width))
        self.stack = TransformerStack(transformer)
        self.output = nn.Linear(transformer.width, config.embedding_dim)
        self._initialise(config.fusion.init_seed)

    def forward(
        self,
        text: TokenStates,
        features: Tensor,
        frame_mask: Tensor,
        frame_times_s: Tensor,
        need_weights: bool = False,
    ) -> FusionOutput:
        """Fuse a batch.

        Args:
            text: token states [B, L, E] and mask; L may be 0.
            features: float [B, T, K, D]; T may be 0. What stands in masked frames is not looked at.
            frame_mask: bool [B, T], True for real frames.
            frame_times_s: float [B, T], seconds from any origin: only differences from the first real frame count.
            need_weights: return attention weights.
        """
        num_items = len(features)
        time_embedding = self._time_embedding(frame_mask, frame_times_s)
        cls, switch, sep = (token.expand(num_items, 1, -1) for token in self.special_tokens[:, None, :].unbind(0))
        states = torch.cat(
            [cls, self._text_tokens(text), switch, self._video_tokens(features, frame_mask, time_embedding), sep], dim=1
        )
        present = frame_mask.new_ones(num_items, 1)
        video_mask = frame_mask.repeat_interleave(features.shape[2], dim=1)  # [B, T * K]
        mask = torch.cat([present, text.mask, present, video_mask, present], dim=1)
        states, attention = self.stack(states, mask, need_weights)
        return FusionOutput(self.output(states[:, _CLS]), states, mask, attention)

    def _text_tokens(self, text: TokenStates) -> Tensor:
        """[B, L, E] -> [B, L, W]. BERT has already put word order into the states."""
        return self.text_projection(text.states) + self.modality_embedding.weight[_TEXT]

    def _video_tokens(self, features: Tensor, frame_mask: Tensor, time_embedding: Tensor) -> Tensor:
        """[B, T, K, D] -> [B, T * K, W]."""
        features = features.masked_fill(~frame_mask[:, :, None, None], 0.0)  # even NaN must not leak
        tokens = self.video_projection(features) + self.frame_token_embedding + time_embedding[:, :, None, :]
        return (tokens + self.modality_embedding.weight[_VIDEO]).flatten(1, 2)

    def _time_embedding(self, frame_mask: Tensor, frame_times_s: Tensor) -> Tensor:
        """Seconds since each item's first real frame, as waves: [B, T] -> [B, T, W]."""
        if frame_times_s.shape[1] == 0:
            return frame_times_s.new_zeros(*frame_times_s.shape, self.special_tokens.shape[1])
        start_s = frame_times_s.masked_fill(~frame_mask, torch.inf).amin(dim=1, keepdim=True)
        since_start_s = (frame_times_s - start_s).masked_fill(~frame_mask, 0.0)
        return sinusoidal_encoding(since_start_s, self.special_tokens.shape[1], self.max_period_s)

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif "norm" not in name and not name.endswith("projection.0.weight"):  # LayerNorm scales stay 1
                nn.init.normal_(parameter, std=_INIT_STD, generator=generator)


def _projection(width_in: int, width_out: int) -> nn.Sequential:
    """LayerNorm first, because the scales of the two modalities differ by an order of magnitude."""
    return nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, width_out))
