"""A smaller model without training: neurons of the feed-forward layers are taken out, and the others make up for them.

Shapes: B items, L tokens, W = width, F = neurons of a feed-forward layer, K of them kept.

The neurons that go are those whose variance, on texts of the kind that the model is for, moves the layer's output
least; the outer weights of the others are then fitted so that the output stays as near as it can. Layers are pruned one
after the other, each on what the pruned ones before it give.

Source: Kwon et al., "A Fast Post-Training Pruning Framework for Transformers", 2022, for the reconstruction by least
squares; Frantar et al., "SparseGPT", 2023, for going layer by layer. Departure: neurons are chosen by their own
variance only. Attention heads stay: a head of `mini` is 32 numbers wide, and the feed-forward layers are two thirds of
a block.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import TransformerConfig, VideoBertConfig
from model.errors import ModelError
from model.quantization import check_parts, with_whole_parts
from model.transformer import FeedForward, TransformerBlock, TransformerStack
from model.videobert import VideoBert

PRUNABLE_PARTS = ("text", "fusion")
MAX_AMOUNT = 0.95
FEWEST_TEXTS = 16
_RIDGE = 1e-3  # of the mean variance


class Moments(NamedTuple):
    """Videos with texts, as `VideoBert.encode_video` takes them."""

    features: Tensor
    frame_mask: Tensor
    frame_times_s: Tensor
    texts: list[str]


class StackInput(NamedTuple):
    """A batch of states float [B, L, W] and its mask bool [B, L], as `TransformerStack` takes them."""

    states: Tensor
    mask: Tensor | None


def pruned_model(
    model: VideoBert, parts: Collection[str], amount: float, texts: Sequence[str], moments: Moments | None = None
) -> VideoBert:
    """A copy of the model with smaller feed-forward layers, as narrow in every layer of a part.

    Args:
        model: with the runtime "torch".
        parts: of "text" and "fusion".
        amount: share of the neurons that go, 0 to 0.95.
        texts: at least 16, to choose and fit by.
        moments: for the part fusion; without them, its neurons are chosen by the size of their weights and nothing is
            fitted.

    Raises:
        ModelError: `amount` or `texts` is outside of that, or as `check_parts`.
    """
    if not 0 <= amount <= MAX_AMOUNT:
        raise ModelError(f"the amount must be between 0 and {MAX_AMOUNT}, got {amount!r}")
    check_parts(model, parts, PRUNABLE_PARTS)
    if len(texts) < FEWEST_TEXTS:
        raise ModelError(f"pruning needs at least {FEWEST_TEXTS} texts to choose by, got {len(texts)}")
    pruned = copy.deepcopy(model)
    pruned.config = pruned_config(model.config, parts, amount)
    pruned.text_encoder.config = pruned.config.text
    if "text" in parts:
        encoder = pruned.text_encoder
        inputs = _inputs_of(encoder.stack, lambda: encoder.encode(texts))
        _prune_stack(encoder.stack, pruned.config.text.transformer.ffn_width, inputs)
    if "fusion" in parts:
        inputs = [] if moments is None else _inputs_of(pruned.fusion.stack, lambda: pruned.encode_video(*moments))
        _prune_stack(pruned.fusion.stack, pruned.config.fusion.transformer.ffn_width, inputs)
    return pruned


def pruned_config(config: VideoBertConfig, parts: Collection[str], amount: float) -> VideoBertConfig:
    """The settings of the pruned model: its checkpoint brings the pruned parts whole."""

    def narrow(transformer: TransformerConfig) -> TransformerConfig:
        return replace(transformer, ffn_width=max(1, round(transformer.ffn_width * (1 - amount))))

    config = with_whole_parts(config, parts)
    if "text" in parts:
        config = replace(config, text=replace(config.text, transformer=narrow(config.text.transformer)))
    if "fusion" in parts:
        config = replace(config, fusion=replace(config.fusion, transformer=narrow(config.fusion.transformer)))
    return config


def _inputs_of(stack: TransformerStack, run: Callable[[], object]) -> list[StackInput]:
    """What enters the stack while `run` runs."""
    inputs: list[StackInput] = []
    hook = stack.register_forward_pre_hook(lambda module, arguments: inputs.append(StackInput(*arguments[:2])))
    try:
        run()
    finally:
        hook.remove()
    return inputs


@torch.no_grad()
def _prune_stack(stack: TransformerStack, num_kept: int, inputs: list[StackInput]) -> None:
    for block in stack.blocks:
        assert isinstance(block, TransformerBlock)
        statistics = NeuronStatistics(block.feed_forward.inner.out_features)
        with _shown_to(block.feed_forward, statistics):
            for states, mask in inputs:
                statistics.mask = mask
                block(states, mask)
        block.feed_forward = pruned_layer(block.feed_forward, num_kept, statistics if statistics.count else None)
        inputs = [StackInput(block(states, mask)[0], mask) for states, mask in inputs]


@contextmanager
def _shown_to(layer: FeedForward, statistics: NeuronStatistics) -> Iterator[None]:
    hook = layer.register_forward_pre_hook(lambda module, inputs: statistics.add(neurons(layer, inputs[0])))
    try:
        yield
    finally:
        hook.remove()


class NeuronStatistics:
    """Means float64 [F] and covariances float64 [F, F] of the neurons of a layer, over the tokens that it is shown.

    Attributes:
        count: tokens so far.
        mask: bool [B, L], True for the real tokens of what is added next; None: all are.
    """

    def __init__(self, num_neurons: int) -> None:
        self.count = 0
        self.mask: Tensor | None = None
        self._sum = torch.zeros(num_neurons, dtype=torch.float64)
        self._products = torch.zeros(num_neurons, num_neurons, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Values float [B, L, F]."""
        rows = values.flatten(0, 1) if self.mask is None else values[self.mask]
        self.count += len(rows)
        self._sum += rows.sum(dim=0)
        self._products += rows.T @ rows

    def mean(self) -> Tensor:
        return self._sum / self.count

    def covariance(self) -> Tensor:
        return self._products / self.count - torch.outer(self.mean(), self.mean())


def neurons(layer: FeedForward, states: Tensor) -> Tensor:
    """What the neurons say: float [..., W] -> [..., F]."""
    return F.gelu(layer.inner(states))


@torch.no_grad()
def pruned_layer(layer: FeedForward, num_kept: int, statistics: NeuronStatistics | None) -> FeedForward:
    """The layer with its `num_kept` most important neurons; without statistics, those with the largest weights."""
    outer = layer.outer.weight.detach().double()  # [W, F]
    if statistics is None:
        importance = layer.inner.weight.detach().double().norm(dim=1) * outer.norm(dim=0)
    else:
        importance = statistics.covariance().diagonal() * outer.square().sum(dim=0)
    kept = importance.topk(num_kept).indices.sort().values
    weight, bias = outer[:, kept], layer.outer.bias.detach().double()
    if statistics is not None:
        weight, bias = _fitted(outer, bias, kept, statistics)
    return _feed_forward(layer.inner.weight[kept], layer.inner.bias[kept], weight, bias)


def _fitted(outer: Tensor, bias: Tensor, kept: Tensor, statistics: NeuronStatistics) -> tuple[Tensor, Tensor]:
    """Weight [W, K] and bias [W] that bring the kept neurons nearest to the layer's output, by least squares.

    The ridge pulls towards the weights that they had.
    """
    covariance, mean = statistics.covariance(), statistics.mean()
    among_kept = covariance[kept][:, kept]
    ridge = _RIDGE * covariance.diagonal().mean() * torch.eye(len(kept), dtype=torch.float64)
    wanted = outer @ covariance[:, kept] + outer[:, kept] @ ridge
    weight = torch.linalg.solve(among_kept + ridge, wanted.T).T
    return weight, bias + outer @ mean - weight @ mean[kept]


def _feed_forward(inner_weight: Tensor, inner_bias: Tensor, outer_weight: Tensor, outer_bias: Tensor) -> FeedForward:
    num_neurons, width = inner_weight.shape
    layer = FeedForward(TransformerConfig(num_layers=1, width=width, num_heads=1, ffn_width=num_neurons))
    pairs: list[tuple[Tensor, Tensor]] = [
        (layer.inner.weight, inner_weight),
        (layer.inner.bias, inner_bias),
        (layer.outer.weight, outer_weight),
        (layer.outer.bias, outer_bias),
    ]
    for parameter, values in pairs:
        parameter.copy_(values)
    return layer.eval()
