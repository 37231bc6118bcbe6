"""The cross-modal Transformer: text and video tokens attend to each other in one sequence.

    [CLS] text text ... [>] video video ... [SEP]

Shapes: B items, L text slots, T frames, K tokens per frame, D numbers per video token, S = 3 + L + T * K slots in all,
W = width of the tower, E = `embedding_dim`. Slots without a token are masked, so a padded batch gives what each item
gives alone, and leaving out one modality altogether is the same tower: the three regimes of the paper.

Source: Sun et al., "VideoBERT", 2019, section 3.2. Departures: video tokens are continuous features rather than
visual words; frames carry a time embedding in seconds rather than a position, so that any sampling rate will do; and
where captions to learn from are few, a frame head beside the stack: an MLP on the mean frame, which alone speaks for
videos without text, as the stack only learns the photographs by heart (Luo et al., "CLIP4Clip", 2021, section 4.3, find
the same of mean pooling against a sequential Transformer on small data).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.config import VideoBertConfig
from model.conse import mean_over_frames
from model.text_encoder import TokenStates
from model.transformer import TransformerStack, sinusoidal_encoding

_INIT_STD = 0.02  # BERT's
_HEAD_DROPOUT = 0.6
_START_AT_ZERO = ("frame_head.5.weight", "output.weight")  # beside a frame head, both join in slowly
_LAYER_NORMS = ("projection.0.weight", "frame_head.0.weight")
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
        head_width = config.fusion.frame_head_width
        self.frame_head = (
            _frame_head(config.frames.feature_dim, head_width, config.embedding_dim) if head_width else None
        )
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

    @property
    def is_silent(self) -> bool:
        """Whether the stack adds nothing, whatever it is given: its output layer is still at zero."""
        return not (self.output.weight.any() or self.output.bias.any())

    def of_mean_frame(self, features: Tensor, frame_mask: Tensor) -> Tensor:
        """What the frame head says, of a tower that has one: features [B, T, K, D] -> [B, E]; zeros without frames."""
        assert self.frame_head is not None
        out: Tensor = self.frame_head(mean_over_frames(features.mean(dim=2), frame_mask))
        return out * frame_mask.any(dim=1, keepdim=True)

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
        at_zero = _START_AT_ZERO if self.frame_head is not None else ()
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name in at_zero:
                nn.init.zeros_(parameter)
            elif "norm" not in name and not name.endswith(_LAYER_NORMS):  # whose scales stay 1
                nn.init.normal_(parameter, std=_INIT_STD, generator=generator)


def _frame_head(width_in: int, inner_width: int, width_out: int) -> nn.Sequential:
    """Normalised, so that the scale of the features does not matter; much dropout, as captions are few."""
    first, last = nn.Linear(width_in, inner_width), nn.Linear(inner_width, width_out)
    drop = nn.Dropout(_HEAD_DROPOUT)
    return nn.Sequential(nn.LayerNorm(width_in), drop, first, nn.GELU(), drop, last)


def _projection(width_in: int, width_out: int) -> nn.Sequential:
    """LayerNorm first, because the scales of the two modalities differ by an order of magnitude."""
    return nn.Sequential(nn.LayerNorm(width_in), nn.Linear(width_in, width_out))
