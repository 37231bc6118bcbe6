"""What is hidden in pretraining: text tokens as in BERT, and whole frames.

Shapes: N texts, L tokens, B videos, T frames, K tokens per frame, D numbers per token. All chance comes from the
generator given, and is drawn on its device, so that a generator on the CPU gives the same masks whatever device the
tensors are on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.errors import InputError

_SHARE_MASK_TOKEN, _SHARE_RANDOM = 0.8, 0.1  # the rest stays as it is


class MaskedTokens(NamedTuple):
    """Token ids with some of them hidden.

    Attributes:
        token_ids: int64 [N, L], what the model sees.
        chosen: bool [N, L], True where the original token is to be guessed.
    """

    token_ids: Tensor
    chosen: Tensor


class Hidden(NamedTuple):
    """Videos with their texts, of which some tokens and frames are to be guessed.

    Attributes:
        token_ids: int64 [B, L], what the model sees.
        token_mask: bool [B, L], True where there is a token.
        token_chosen: bool [B, L], True where a token is to be guessed.
        true_ids: int64 [B, L], the tokens before any was hidden.
        features: float [B, T, K, D], what the model sees.
        frame_mask: bool [B, T], True for real frames.
        frame_chosen: bool [B, T], True where the visual words of a frame are to be guessed.
        true_words: int64 [B, T, K], the words of the frames that are to be guessed; 0 for the others.
        frame_times_s: float [B, T], seconds.
    """

    token_ids: Tensor
    token_mask: Tensor
    token_chosen: Tensor
    true_ids: Tensor
    features: Tensor
    frame_mask: Tensor
    frame_chosen: Tensor
    true_words: Tensor
    frame_times_s: Tensor


def mask_tokens(
    token_ids: Tensor,
    mask: Tensor,
    *,
    mask_id: int,
    special_ids: Sequence[int],
    vocab_size: int,
    rate: float,
    generator: torch.Generator,
) -> MaskedTokens:
    """Choose tokens to be guessed; 80 % of them become `[MASK]`, 10 % any ordinary token, 10 % stay.

    Args:
        token_ids: int64 [N, L], from 0 to `vocab_size - 1`.
        mask: bool [N, L], True where a token is real.
        mask_id: of `[MASK]`.
        special_ids: tokens that are neither chosen nor put in, `[CLS]` and `[SEP]` among them.
        vocab_size: number of tokens there are.
        rate: share of the ordinary tokens that is chosen; at least one of each text that has any.
        generator: of all chance.

    Raises:
        InputError: the rate is not between 0 and 1.

    Source: Devlin et al., "BERT", 2019, section 3.1. Departure: at least one in each text, as captions are short.
    """
    special = torch.tensor(sorted(special_ids), device=token_ids.device)
    chosen = _choose(mask & ~torch.isin(token_ids, special), rate, generator)
    fate = _uniform(token_ids.shape, generator, token_ids.device)
    ordinary = torch.ones(vocab_size, dtype=torch.bool).index_fill(0, special.cpu(), False).nonzero()[:, 0]
    drawn = torch.randint(len(ordinary), token_ids.shape, generator=generator, device=generator.device)
    random_ids = ordinary.to(token_ids.device)[drawn.to(token_ids.device)]
    hidden = token_ids.masked_fill(chosen & (fate < _SHARE_MASK_TOKEN), mask_id)
    is_random = chosen & (fate >= _SHARE_MASK_TOKEN) & (fate < _SHARE_MASK_TOKEN + _SHARE_RANDOM)
    return MaskedTokens(torch.where(is_random, random_ids, hidden), chosen)


def choose_frames(frame_mask: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Choose frames to be guessed from the rest: about a share `rate`, at least one of each video, and never all.

    A video of one frame is left alone, as nothing would be left to guess from.

    Args:
        frame_mask: bool [B, T], True for real frames.
        rate: 0 to 1.
        generator: of all chance.

    Returns:
        bool [B, T], True only where `frame_mask` is.

    Raises:
        InputError: the rate is not between 0 and 1.

    Source: Sun et al., "VideoBERT", 2019, section 3.2: the visual words of these frames are to be guessed.
    """
    chosen = _choose(frame_mask & (frame_mask.sum(dim=1, keepdim=True) > 1), rate, generator)
    is_last_hope = frame_mask & (frame_mask.cumsum(dim=1) == 1) & (chosen == frame_mask).all(dim=1, keepdim=True)
    return chosen & ~is_last_hope


def _choose(allowed: Tensor, rate: float, generator: torch.Generator) -> Tensor:
    """Each allowed place with probability `rate`, and at least one of each row that has any."""
    if not 0 <= rate <= 1:
        raise InputError(f"the share to mask must be between 0 and 1, got {rate!r}")
    if allowed.shape[1] == 0:
        return allowed
    draw = _uniform(allowed.shape, generator, allowed.device).masked_fill(~allowed, torch.inf)
    return allowed & ((draw < rate) | (draw == draw.amin(dim=1, keepdim=True)))


def _uniform(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(device)
