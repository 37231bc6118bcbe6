"""The two stages of the recipe, each run from several seeds whose results are averaged.

Stage 1 tunes the last layers of the CNN, under a tower and a query adapter that are then thrown away. Stage 2 trains
frame head and query adapter on the features that these layers now give.

Shapes: N photographs, V views of each, A activations at each of 7 x 7 = 49 places, D numbers of a frame's features, E
of a sentence embedding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from model.config import VideoBertConfig, preset
from model.frame_encoder import EfficientNetLite0
from model.videobert import VideoBert
from model.weights import pretrained_model
from recipes.flickr8k.late_layers import LateLayers
from recipes.flickr8k.loop import Group, LoopSettings, fit
from recipes.flickr8k.losses import CnnLoss, HeadLoss, Temperature
from recipes.flickr8k.merge import mean_of, merge_heads


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice made.

    Attributes:
        seed: of the split and the views; batches and dropout of run n of a stage have the seed `seed` + n.
        first_tuned_block: the CNN is frozen before this one of its 16 blocks.
        num_views: of each photograph: itself, its mirror image, and random crops.
        distillation: in stage 1, weight of the loss that keeps ImageNet's classes as they were.
        num_tunings: runs of stage 1, whose weights are averaged (Wortsman et al., "Model soups", 2022).
        num_heads: runs of stage 2. Their heads and adapters become one head and adapter that give the mean.
        kept_gate: after stage 2, the part of the gate that stays. Less of the head costs photographs like those of the
            training nothing, and lets the anchor speak for all others (Wortsman et al., "Robust fine-tuning of
            zero-shot models", 2022).
        captions_weight: in stage 2, weight of the loss by which captions of one photograph find each other.
        cnn, head: the loops of the two stages.
        fresh_rate, tuned_rate, temperature_rate: learning rates of head, gate and adapter, of the CNN, and of the
            temperature.
    """

    seed: int = 0
    first_tuned_block: int = 13
    num_views: int = 3
    distillation: float = 0.3
    num_tunings: int = 3
    num_heads: int = 3
    kept_gate: float = 0.5
    captions_weight: float = 0.2
    cnn: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=6, batch_size=128, ema_decay=0.98))
    head: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=24, batch_size=256))
    fresh_rate: float = 1e-3
    tuned_rate: float = 3e-4
    temperature_rate: float = 1e-2


def tune_cnn(views: list[Tensor], sentences: Tensor, num_held_out: int, recipe: Recipe) -> EfficientNetLite0:
    """Stage 1, on all photographs but the first `num_held_out`: the CNN, rounded as a checkpoint will hold it.

    Args:
        views: float16 [N, 49, A] each, before the first tuned block.
        sentences: float32 [5N, E].
        num_held_out: of the N photographs.
        recipe: the choices.
    """
    runs = [_tune_once(views, sentences, num_held_out, recipe, number) for number in range(recipe.num_tunings)]
    encoder = cnn_of(fresh_model(preset("mini")))
    encoder.load_state_dict(mean_of([run.state_dict() for run in runs]))
    for weight in LateLayers(encoder, recipe.first_tuned_block).parameters():
        weight.copy_(weight.half())  # stage 2 learns on what the file will give, not on something finer
    return encoder


def _tune_once(
    views: list[Tensor], sentences: Tensor, num_held_out: int, recipe: Recipe, number: int
) -> EfficientNetLite0:
    print(f"stage 1, run {number + 1} of {recipe.num_tunings}: the last layers of the CNN", flush=True)
    torch.manual_seed(recipe.seed + number)
    config = _with_narrow_head(preset("mini"), recipe.num_heads)
    model = fresh_model(replace(config, fusion=replace(config.fusion, frame_head_width=0)))
    late, temperature = LateLayers(cnn_of(model), recipe.first_tuned_block), Temperature()
    groups = [*_fresh_groups(model, model.fusion, temperature, recipe), _group(late.tuned(), recipe.tuned_rate)]
    loss = CnnLoss(model, late, views, sentences, temperature, recipe.distillation)
    _set_training(model, late)
    fit(groups, len(views[0]) - num_held_out, lambda rows: loss(rows + num_held_out), recipe.cnn)
    return cnn_of(model)


def features_of(encoder: EfficientNetLite0, views: list[Tensor], recipe: Recipe) -> Tensor:
    """Features that the CNN gives of all views: float16 [N, V, D]."""
    late = LateLayers(encoder, recipe.first_tuned_block).eval()
    return torch.stack([late.features(states) for states in views], dim=1)


def train_head(
    encoder: EfficientNetLite0, features: Tensor, sentences: Tensor, num_held_out: int, recipe: Recipe
) -> VideoBert:
    """Stage 2, on all photographs but the first `num_held_out`: the trained model, in evaluation mode.

    Args:
        encoder: of stage 1.
        features: its own, of all views: [N, V, D].
        sentences, num_held_out, recipe: as `tune_cnn`.
    """
    runs = [_train_once(features, sentences, num_held_out, recipe, number) for number in range(recipe.num_heads)]
    model = fresh_model(preset("mini"))
    cnn_of(model).load_state_dict(encoder.state_dict())
    merge_heads(runs, model)
    with torch.no_grad():
        model.gate.mul_(recipe.kept_gate)
    return model.eval()


def _train_once(features: Tensor, sentences: Tensor, num_held_out: int, recipe: Recipe, number: int) -> VideoBert:
    num_photographs = len(features) - num_held_out
    print(
        f"stage 2, run {number + 1} of {recipe.num_heads}: head and adapter, {num_photographs} photographs", flush=True
    )
    torch.manual_seed(recipe.seed + number)
    model, temperature = fresh_model(_with_narrow_head(preset("mini"), recipe.num_heads)), Temperature()
    head = model.fusion.frame_head
    assert head is not None
    groups = _fresh_groups(model, head, temperature, recipe)
    loss = HeadLoss(model, features, sentences, temperature, recipe.captions_weight)
    _set_training(model)
    fit(groups, num_photographs, lambda rows: loss(rows + num_held_out), recipe.head)
    return model


def fresh_model(config: VideoBertConfig) -> VideoBert:
    """Pretrained backbones under fresh weights with an open gate; nothing wants gradients."""
    model = pretrained_model(config, {}).requires_grad_(False)
    model.gate.fill_(1.0)
    return model


def cnn_of(model: VideoBert) -> EfficientNetLite0:
    """The frame encoder, which is the one that the recipe is made for."""
    assert isinstance(model.frame_encoder, EfficientNetLite0)
    return model.frame_encoder


def _with_narrow_head(config: VideoBertConfig, num_heads: int) -> VideoBertConfig:
    """The settings of one of the heads and adapters that are merged in the end."""
    return replace(
        config,
        text=replace(config.text, adapter_width=config.text.adapter_width // num_heads),
        fusion=replace(config.fusion, frame_head_width=config.fusion.frame_head_width // num_heads),
    )


def _fresh_groups(model: VideoBert, head: nn.Module, temperature: Temperature, recipe: Recipe) -> list[Group]:
    """Of the head, which is the tower or a part of it, the adapter, the gate and the temperature."""
    adapter = model.text_encoder.adapter
    assert adapter is not None
    new = _group([*head.parameters(), *adapter.parameters(), model.gate], recipe.fresh_rate)
    return [new, _group(temperature.parameters(), recipe.temperature_rate)]


def _group(weights: Iterable[nn.Parameter], rate: float) -> Group:
    group = Group(weights=list(weights), learning_rate=rate)
    for weight in group.weights:
        weight.requires_grad_(True)
    return group


def _set_training(model: VideoBert, *tuned: nn.Module) -> None:
    """Dropout in the tower only; the tuned layers become fast. The backbones keep their statistics."""
    model.train()
    model.frame_encoder.eval()
    model.text_encoder.eval()
    for layers in tuned:
        layers.train()
