"""Train `mini` on Flickr8k, on any CPU.

    python -m recipes.flickr8k --data flickr8k_train.parquet --clips videos --out checkpoint.safetensors

Stage 1 tunes the last layers of the CNN, under a tower and a query adapter that are then thrown away. On the features
that these layers now give, stage 2 trains a new adapter and the frame head for videos of several frames, and stage 3
the rest of the tower for videos with a transcript. The figures printed at the end are those of the file as written.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import save_checkpoint
from model.config import preset
from model.frame_encoder import EfficientNetLite0
from model.text_encoder import mean_pool
from model.videobert import VideoBert
from model.weights import base_checksums, load_model, pretrained_model
from recipes.flickr8k.cache import LateLayers, TokenCache, activations, early_token_states
from recipes.flickr8k.data import CAPTIONS_PER_IMAGE, Photographs, Pixels, read_clips, read_photographs, view
from recipes.flickr8k.evaluate import Recall, evaluate_clips, evaluate_photographs
from recipes.flickr8k.loop import Group, LoopSettings, fit
from recipes.flickr8k.losses import BackboneLoss, Temperature, TranscriptLoss, VideoLoss

_VIEWS_AT_ONCE = 64
_SENTENCES_PER_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every choice made.

    Attributes:
        seed: of the split, the views and the batches.
        first_tuned_block: the CNN is frozen before this one of its 16 blocks.
        num_views: of each photograph: itself, its mirror image, and random crops.
        distillation: weight of the loss that keeps ImageNet's classes as they were.
        backbones, videos, transcripts: the loops of the three stages.
        fresh_rate, tuned_rate, tower_rate, temperature_rate: learning rates of head and adapter, of the CNN, of the
            rest of the tower, and of the temperature.
    """

    seed: int = 0
    first_tuned_block: int = 13
    num_views: int = 3
    distillation: float = 0.3
    backbones: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=6, batch_size=128, ema_decay=0.98))
    videos: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=12, batch_size=256))
    transcripts: LoopSettings = field(default_factory=lambda: LoopSettings(num_epochs=1, batch_size=64))
    fresh_rate: float = 1e-3
    tuned_rate: float = 3e-4
    tower_rate: float = 3e-4
    temperature_rate: float = 1e-2


def main() -> None:
    """Parse the command line, train, write, measure."""
    parser = argparse.ArgumentParser(prog="python -m recipes.flickr8k", description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="Parquet file with the columns jpeg and captions")
    parser.add_argument("--clips", type=Path, help="folder with captioned clips and manifest.tsv, to measure on")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, *.safetensors")
    parser.add_argument("--held-out", type=int, default=1000, help="photographs not trained on; 0 for the final run")
    arguments = parser.parse_args()
    started_s, recipe = time.monotonic(), Recipe()
    photographs = read_photographs(arguments.data, recipe.seed)
    model = train(photographs.part(arguments.held_out, len(photographs)), recipe)
    save_checkpoint(model, model.config, base_checksums(model.config), arguments.out)
    print(f"{arguments.out} written after {(time.monotonic() - started_s) / 60:.0f} minutes", flush=True)
    shipped = load_model(str(arguments.out))
    if arguments.held_out:
        _print(evaluate_photographs(shipped, photographs.part(0, arguments.held_out)))
    if arguments.clips is not None:
        _print(evaluate_clips(shipped, read_clips(arguments.clips)))


def train(photographs: Photographs, recipe: Recipe) -> VideoBert:
    """All stages, from the pretrained backbones."""
    torch.manual_seed(recipe.seed)
    model = _fresh_model(frame_head=False)
    late = LateLayers(_cnn(model), recipe.first_tuned_block)
    views = [_activations(model, photographs, number, recipe) for number in range(recipe.num_views)]
    texts = [caption for five in photographs.captions for caption in five]
    tokens = early_token_states(model.text_encoder, len(model.text_encoder.stack.blocks), texts)
    rows = torch.arange(len(tokens)).split(_SENTENCES_PER_BATCH)
    sentences = torch.cat([mean_pool(tokens.batch(batch)) for batch in rows])
    _tune_backbones(model, late, views, sentences, recipe)
    features = torch.stack([late.features(states) for states in views], dim=1)  # [N, V, D]
    tuned, model = model, _fresh_model(frame_head=True)
    model.frame_encoder.load_state_dict(tuned.frame_encoder.state_dict())
    _train_tower(model, features, tokens, sentences, recipe)
    return model.eval()


def _fresh_model(frame_head: bool) -> VideoBert:
    config = preset("mini")
    if not frame_head:
        config = replace(config, fusion=replace(config.fusion, frame_head_width=0))
    model = pretrained_model(config, {}).requires_grad_(False)
    model.gate.fill_(1.0)
    if frame_head:
        model.fusion.output.weight.zero_()  # the stack joins in slowly
    return model


def _cnn(model: VideoBert) -> EfficientNetLite0:
    assert isinstance(model.frame_encoder, EfficientNetLite0)
    return model.frame_encoder


def _tune_backbones(model: VideoBert, late: LateLayers, views: list[Tensor], sentences: Tensor, recipe: Recipe) -> None:
    print("stage 1: the last layers of the CNN, with the stack and the adapter", flush=True)
    temperature = Temperature()
    groups = [*_fresh_groups(model, model.fusion, temperature, recipe), _group(late, recipe.tuned_rate)]
    _set_training(model)
    loss = BackboneLoss(model, late, views, sentences, temperature, recipe.distillation)
    fit(groups, len(sentences) // CAPTIONS_PER_IMAGE, loss, recipe.backbones)


def _train_tower(model: VideoBert, features: Tensor, tokens: TokenCache, sentences: Tensor, recipe: Recipe) -> None:
    print("stage 2: frame head and adapter, on videos of several frames", flush=True)
    temperature = Temperature()
    known = (model, features, tokens, sentences, temperature)
    head = model.fusion.frame_head
    assert head is not None
    groups = _fresh_groups(model, head, temperature, recipe)
    _set_training(model)
    fit(groups, len(features), VideoLoss(*known), recipe.videos)
    print("stage 3: the rest of the tower, on videos with transcripts", flush=True)
    model.requires_grad_(False)
    temperature.requires_grad_(False)
    model.fusion.requires_grad_(True)
    head.requires_grad_(False).eval()
    rest = [weight for weight in model.fusion.parameters() if weight.requires_grad]
    fit(
        [Group(weights=rest, learning_rate=recipe.tower_rate)],
        len(features),
        TranscriptLoss(*known),
        recipe.transcripts,
    )


def _fresh_groups(model: VideoBert, head: torch.nn.Module, temperature: Temperature, recipe: Recipe) -> list[Group]:
    """Of the head, which is the tower or a part of it, the adapter, the gate and the temperature."""
    adapter = model.text_encoder.adapter
    assert adapter is not None
    model.gate.requires_grad_(True)
    gate = Group(weights=[model.gate], learning_rate=recipe.fresh_rate)
    new = [_group(part, recipe.fresh_rate) for part in (head, adapter)]
    return [*new, gate, _group(temperature, recipe.temperature_rate)]


def _group(part: torch.nn.Module, rate: float) -> Group:
    return Group(weights=list(part.requires_grad_(True).parameters()), learning_rate=rate)


def _set_training(model: VideoBert) -> None:
    """Dropout in the tower only: the backbones keep their statistics."""
    model.train()
    model.frame_encoder.eval()
    model.text_encoder.eval()


def _activations(model: VideoBert, photographs: Photographs, number: int, recipe: Recipe) -> Tensor:
    print(f"view {number} of {len(photographs)} photographs", flush=True)
    frames = _views(photographs, number, recipe.seed)
    return activations(_cnn(model), recipe.first_tuned_block, frames, len(photographs))


def _views(photographs: Photographs, number: int, seed: int) -> Iterator[Pixels]:
    """One view of each, decoded a little ahead in another thread."""
    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(photographs), _VIEWS_AT_ONCE):
            batch = photographs.jpegs[start : start + _VIEWS_AT_ONCE]
            yield from pool.map(lambda jpeg: view(jpeg, number, seed), batch)


def _print(figures: dict[str, Recall]) -> None:
    for name, (one, five, ten) in figures.items():
        print(f"  {name:16} R@1/5/10 = {one:.1f} / {five:.1f} / {ten:.1f}", flush=True)


if __name__ == "__main__":
    main()
