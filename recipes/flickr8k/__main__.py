"""Train `mini` on Flickr8k, on any CPU.

    python -m recipes.flickr8k --data flickr8k_train.parquet --clips videos --out checkpoint.safetensors

Stage 1 tunes the last layers of the CNN, under a tower and a query adapter that are then thrown away. On the features
that these layers now give, stage 2 trains frame head and query adapter: once without the photographs held out, to
measure on these, and once more on all, for the file. The same machine, data and number of threads give the same file.
With --cnn, stage 1 is left out and its result read from a checkpoint: given the shipped one, stage 2 makes it again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from model.checkpoint import save_checkpoint
from model.config import preset
from model.frame_encoder import EfficientNetLite0
from model.videobert import VideoBert
from model.weights import base_checksums, load_videobert, pretrained_model
from recipes.flickr8k.cache import Cache, activations, sentence_embeddings
from recipes.flickr8k.data import Photographs, read_clips, read_photographs, view
from recipes.flickr8k.evaluate import Recall, evaluate_clips, evaluate_photographs
from recipes.flickr8k.late_layers import LateLayers
from recipes.flickr8k.loop import Group, LoopSettings, fit
from recipes.flickr8k.losses import CnnLoss, HeadLoss, Temperature


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice made.

    Attributes:
        seed: of the split, the views and the batches.
        first_tuned_block: the CNN is frozen before this one of its 16 blocks.
        num_views: of each photograph: itself, its mirror image, and random crops.
        distillation: in stage 1, weight of the loss that keeps ImageNet's classes as they were.
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
    kept_gate: float = 0.4
    captions_weight: float = 0.2
    cnn: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=6, batch_size=128, ema_decay=0.98))
    head: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=24, batch_size=256))
    fresh_rate: float = 1e-3
    tuned_rate: float = 3e-4
    temperature_rate: float = 1e-2


def main() -> None:
    """Parse the command line, train, write, measure."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    started_s, recipe = time.monotonic(), Recipe()
    photographs = read_photographs(arguments.data, recipe.seed)
    views, sentences = _frozen(photographs, recipe, Cache(arguments.cache, arguments.data))
    num_held_out = arguments.held_out
    if arguments.cnn is None:
        encoder, features = tune_cnn(views, sentences, num_held_out, recipe)
    else:
        encoder = _cnn(load_videobert(str(arguments.cnn), runtime="torch"))
        features = _features(LateLayers(encoder, recipe.first_tuned_block), views)
    if num_held_out:
        measured = train_head(encoder, features, sentences, num_held_out, recipe)
        _print(evaluate_photographs(measured, photographs.part(0, num_held_out)))
    model = train_head(encoder, features, sentences, 0, recipe)
    save_checkpoint(model, model.config, base_checksums(model.config), arguments.out)
    print(f"{arguments.out} written after {(time.monotonic() - started_s) / 60:.0f} minutes", flush=True)
    if arguments.clips is not None:
        _print(evaluate_clips(load_videobert(str(arguments.out)), read_clips(arguments.clips)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m recipes.flickr8k", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Parquet file with the columns jpeg and captions")
    parser.add_argument("--clips", type=Path, help="folder with captioned clips and manifest.tsv, to measure on")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, *.safetensors")
    parser.add_argument("--cnn", type=Path, help="checkpoint with the layers that stage 1 would tune, instead of it")
    parser.add_argument("--held-out", type=int, default=1000, help="photographs to measure on; 0 to measure on none")
    parser.add_argument("--cache", type=Path, help="folder that keeps the frozen layers' results between runs, 500 MB")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number gives another file")
    return parser


def tune_cnn(
    views: list[Tensor], sentences: Tensor, num_held_out: int, recipe: Recipe
) -> tuple[EfficientNetLite0, Tensor]:
    """Stage 1, on all photographs but the first `num_held_out`.

    Args:
        views: float16 [N, 49, A] each, before the first tuned block.
        sentences: float32 [5N, E].
        num_held_out: of the N photographs.
        recipe: the choices.

    Returns:
        The CNN, and the features that it now gives of all views: float16 [N, V, D].
    """
    print("stage 1: the last layers of the CNN", flush=True)
    torch.manual_seed(recipe.seed)
    model = _fresh_model(frame_head=False)
    late, temperature = LateLayers(_cnn(model), recipe.first_tuned_block), Temperature()
    groups = [*_fresh_groups(model, model.fusion, temperature, recipe), _group(late.tuned(), recipe.tuned_rate)]
    loss = CnnLoss(model, late, views, sentences, temperature, recipe.distillation)
    _set_training(model, late)
    fit(groups, len(views[0]) - num_held_out, lambda rows: loss(rows + num_held_out), recipe.cnn)
    return _cnn(model), _features(late, views)


def _features(late: LateLayers, views: list[Tensor]) -> Tensor:
    """Features of all views: float16 [N, V, D]."""
    return torch.stack([late.features(states) for states in views], dim=1)


def train_head(
    encoder: EfficientNetLite0, features: Tensor, sentences: Tensor, num_held_out: int, recipe: Recipe
) -> VideoBert:
    """Stage 2, on all photographs but the first `num_held_out`: the trained model, in evaluation mode.

    Args:
        encoder, features: of stage 1.
        sentences, num_held_out, recipe: as `tune_cnn`.
    """
    print(f"stage 2: frame head and adapter, on {len(features) - num_held_out} photographs", flush=True)
    torch.manual_seed(recipe.seed)
    model = _fresh_model(frame_head=True)
    model.frame_encoder.load_state_dict(encoder.state_dict())
    temperature, head = Temperature(), model.fusion.frame_head
    assert head is not None
    groups = _fresh_groups(model, head, temperature, recipe)
    loss = HeadLoss(model, features, sentences, temperature, recipe.captions_weight)
    _set_training(model)
    fit(groups, len(features) - num_held_out, lambda rows: loss(rows + num_held_out), recipe.head)
    with torch.no_grad():
        model.gate.mul_(recipe.kept_gate)
    return model.eval()


def _frozen(photographs: Photographs, recipe: Recipe, cache: Cache) -> tuple[list[Tensor], Tensor]:
    """What the frozen layers make of all views, and of all captions."""
    model = _fresh_model(frame_head=True)

    def states_of(number: int) -> Tensor:
        print(f"view {number} of {len(photographs)} photographs", flush=True)
        frames = (view(jpeg, number, recipe.seed) for jpeg in photographs.jpegs)
        return activations(_cnn(model), recipe.first_tuned_block, frames, len(photographs))

    names = [f"seed{recipe.seed}-view{number}-block{recipe.first_tuned_block}" for number in range(recipe.num_views)]
    views = [cache.remember(name, partial(states_of, number)) for number, name in enumerate(names)]
    captions = [caption for five in photographs.captions for caption in five]
    print(f"{len(captions)} captions", flush=True)
    name = f"seed{recipe.seed}-sentences"
    return views, cache.remember(name, lambda: sentence_embeddings(model.text_encoder, captions))


def _fresh_model(frame_head: bool) -> VideoBert:
    config = preset("mini")
    if not frame_head:
        config = replace(config, fusion=replace(config.fusion, frame_head_width=0))
    model = pretrained_model(config, {}).requires_grad_(False)
    model.gate.fill_(1.0)
    return model


def _cnn(model: VideoBert) -> EfficientNetLite0:
    assert isinstance(model.frame_encoder, EfficientNetLite0)
    return model.frame_encoder


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


def _print(figures: dict[str, Recall]) -> None:
    for name, (one, five, ten) in figures.items():
        print(f"  {name:16} R@1/5/10 = {one:.1f} / {five:.1f} / {ten:.1f}", flush=True)


if __name__ == "__main__":
    main()
