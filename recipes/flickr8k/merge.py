"""Several trainings as one model: CNNs by the mean of their weights, heads by the mean of what they say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.videobert import VideoBert


def mean_of(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of weights that began at the same place, name by name; integers are those of the first.

    Source: Wortsman et al., "Model soups", 2022, section 2, the uniform soup.
    """
    return {name: _mean([state[name] for state in states]) for name in states[0]}


@torch.no_grad()
def merge_heads(models: Sequence[VideoBert], merged: VideoBert) -> None:
    """Write heads, adapters and gates of several models into one whose head and adapter are that many times wider.

    The mean of MLPs is one MLP with all their inner neurons side by side and their last layers divided by their
    number. So the merged model costs no more than a wide one, and gives the mean of `gate * frame_head(x)` and of what
    the adapters add. Each layer norm's scale and shift move into the layer after it.

    Args:
        models: with one frame head and one adapter each, all of one width.
        merged: receives the mean; its other weights are left alone.
    """
    gate = torch.stack([model.gate for model in models]).mean()
    merged.gate.copy_(gate)
    weights = [(model.gate / gate).item() / len(models) for model in models]
    _merge([_head_of(model) for model in models], weights, _head_of(merged))
    _merge([_adapter_of(model) for model in models], [1 / len(models)] * len(models), _adapter_of(merged))


@dataclass(frozen=True)
class _Mlp:
    norm: nn.LayerNorm
    inner: nn.Linear
    outer: nn.Linear


def _head_of(model: VideoBert) -> _Mlp:
    assert model.fusion.frame_head is not None
    layers = [layer for layer in model.fusion.frame_head if isinstance(layer, (nn.LayerNorm, nn.Linear))]
    norm, inner, outer = layers
    assert isinstance(norm, nn.LayerNorm)
    assert isinstance(inner, nn.Linear)
    assert isinstance(outer, nn.Linear)
    return _Mlp(norm, inner, outer)


def _adapter_of(model: VideoBert) -> _Mlp:
    adapter = model.text_encoder.adapter
    assert adapter is not None
    return _Mlp(adapter.norm, adapter.inner, adapter.outer)


def _merge(parts: Sequence[_Mlp], weights: Sequence[float], merged: _Mlp) -> None:
    """Makes `merged` the sum of MLPs, each times its weight."""
    nn.init.ones_(merged.norm.weight)
    nn.init.zeros_(merged.norm.bias)
    merged.inner.weight.copy_(torch.cat([part.inner.weight * part.norm.weight for part in parts]))
    merged.inner.bias.copy_(torch.cat([part.inner.bias + part.inner.weight @ part.norm.bias for part in parts]))
    outer = [part.outer.weight * weight for part, weight in zip(parts, weights, strict=True)]
    merged.outer.weight.copy_(torch.cat(outer, dim=1))
    biases = [part.outer.bias * weight for part, weight in zip(parts, weights, strict=True)]
    merged.outer.bias.copy_(torch.stack(biases).sum(dim=0))


def _mean(weights: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(weights)).mean(dim=0) if weights[0].is_floating_point() else weights[0]
