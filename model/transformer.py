"""Self-attention, feed-forward, block and stack: the Transformer that the text encoder and the fusion tower share.

Shapes: B items, L tokens, W = width, H heads. Masks are bool [B, L], True where a token is real.

Source: Vaswani et al., "Attention Is All You Need", 2017; Devlin et al., "BERT", 2019, for the post-norm block.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import TransformerConfig


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention.

    Source: Vaswani et al. 2017, equation 1 and section 3.2.2.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width)
        self.value = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.width)

    def forward(
        self, states: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Mix the tokens of each item.

        Args:
            states: float [B, L, W].
            mask: bool [B, L]; None where every token is real. Each item needs at least one real token.
            need_weights: return the attention weights, which are then computed explicitly.

        Returns:
            The mixed states [B, L, W], and the weights [B, H, L, L] (rows sum to 1, padding gets 0) or None.
        """
        query, key, value = (self._heads(layer(states)) for layer in (self.query, self.key, self.value))
        key_mask = None if mask is None else mask[:, None, None, :]
        weights = None
        if need_weights:
            weights = _attention_weights(query, key, key_mask)
            mixed = F.dropout(weights, self.dropout, self.training) @ value
        else:
            dropout = self.dropout if self.training else 0.0
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=key_mask, dropout_p=dropout)
        return self.output(mixed.transpose(1, 2).flatten(2)), weights  # [B, H, L, W/H] -> [B, L, W]

    def _heads(self, states: Tensor) -> Tensor:
        """[B, L, W] -> [B, H, L, W/H]."""
        return states.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


def _attention_weights(query: Tensor, key: Tensor, key_mask: Tensor | None) -> Tensor:
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[3])
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask, -torch.inf)
    return scores.softmax(dim=3)


class FeedForward(nn.Module):
    """Two linear layers with the exact (erf) GELU between them: float [B, L, W] -> [B, L, W]."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.width, config.ffn_width)
        self.outer = nn.Linear(config.ffn_width, config.width)

    def forward(self, states: Tensor) -> Tensor:
        return self.outer(F.gelu(self.inner(states)))


class TransformerBlock(nn.Module):
    """Self-attention and feed-forward, each with a residual connection and a LayerNorm.

    Post-norm, as BERT: x = LN(x + f(x)). Pre-norm: x = x + f(LN(x)), which trains without a warm-up.

    Source: Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020, figure 1.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm
        self.attention = SelfAttention(config)
        self.attention_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, states: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments and results as `SelfAttention.forward`."""
        if self.pre_norm:
            mixed, weights = self.attention(self.attention_norm(states), mask, need_weights)
            states = states + self.dropout(mixed)
            return states + self.dropout(self.feed_forward(self.feed_forward_norm(states))), weights
        mixed, weights = self.attention(states, mask, need_weights)
        states = self.attention_norm(states + self.dropout(mixed))
        return self.feed_forward_norm(states + self.dropout(self.feed_forward(states))), weights


class TransformerStack(nn.Module):
    """Blocks one after the other; a pre-norm stack ends with one more LayerNorm."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.num_layers))
        final_norm = nn.LayerNorm(config.width, eps=config.layer_norm_eps) if config.pre_norm else nn.Identity()
        self.final_norm: nn.Module = final_norm

    def forward(
        self, states: Tensor, mask: Tensor | None = None, need_weights: bool = False
    ) -> tuple[Tensor, list[Tensor]]:
        """Run every block.

        Args:
            states: float [B, L, W].
            mask: bool [B, L] or None, as for `SelfAttention`.
            need_weights: collect the attention weights.

        Returns:
            The last states [B, L, W] (those of padding mean nothing), and one [B, H, L, L] for each block,
            or an empty list.
        """
        collected: list[Tensor] = []
        for block in self.blocks:
            states, weights = block(states, mask, need_weights)
            if weights is not None:
                collected.append(weights)
        return self.final_norm(states), collected


def sinusoidal_encoding(positions: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sines and cosines of geometrically spaced wavelengths, from 2π to 2π · `max_period`.

    Args:
        positions: float [...], any real numbers (token positions, or seconds).
        width: numbers per position, even. Entry 2i is the sine and 2i + 1 the cosine of the i-th wavelength.
        max_period: longest wavelength / 2π, in the unit of `positions`.

    Returns:
        float [..., width], each within [-1, 1].

    Source: Vaswani et al. 2017, section 3.5.
    """
    exponents = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32) / width
    angles = positions.float().unsqueeze(-1) * max_period**-exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)
