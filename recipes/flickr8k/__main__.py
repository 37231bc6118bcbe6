"""Train `mini` on Flickr8k, on any CPU.

    python -m recipes.flickr8k --data flickr8k_train.parquet --clips videos --out checkpoint.safetensors

Stage 1 tunes the last layers of the CNN, stage 2 trains frame head and query adapter: once without the photographs held
out, to measure on these, and once more on all, for the file (`recipes/flickr8k/stages.py`). The same machine, data and
number of threads give the same file. With --cnn, stage 1 is left out and its result read from a checkpoint.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import save_checkpoint
from model.config import preset
from model.weights import base_checksums, load_videobert
from recipes.flickr8k.cache import Cache, activations, sentence_embeddings
from recipes.flickr8k.data import Photographs, read_clips, read_photographs, view
from recipes.flickr8k.evaluate import Recall, evaluate_clips, evaluate_photographs
from recipes.flickr8k.stages import Recipe, cnn_of, features_of, fresh_model, train_head, tune_cnn


def main() -> None:
    """Parse the command line, train, write, measure."""
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    started_s, recipe = time.monotonic(), Recipe()
    photographs = read_photographs(arguments.data, recipe.seed)
    views, sentences = _frozen(photographs, recipe, Cache(arguments.cache, arguments.data))
    num_held_out = arguments.held_out
    if arguments.cnn is None:
        encoder = tune_cnn(views, sentences, num_held_out, recipe)
    else:
        encoder = cnn_of(load_videobert(str(arguments.cnn), runtime="torch"))
    features = features_of(encoder, views, recipe)
    if num_held_out:
        measured = train_head(encoder, features, sentences, num_held_out, recipe)
        if arguments.measured is not None:
            save_checkpoint(measured, measured.config, base_checksums(measured.config), arguments.measured)
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
    parser.add_argument("--measured", type=Path, help="also write the model that has not seen those, *.safetensors")
    parser.add_argument("--cache", type=Path, help="folder that keeps the frozen layers' results between runs, 500 MB")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; another number gives another file")
    return parser


def _frozen(photographs: Photographs, recipe: Recipe, cache: Cache) -> tuple[list[Tensor], Tensor]:
    """What the frozen layers make of all views, and of all captions."""
    model = fresh_model(preset("mini"))

    def states_of(number: int) -> Tensor:
        print(f"view {number} of {len(photographs)} photographs", flush=True)
        frames = (view(jpeg, number, recipe.seed) for jpeg in photographs.jpegs)
        return activations(cnn_of(model), recipe.first_tuned_block, frames, len(photographs))

    names = [f"seed{recipe.seed}-view{number}-block{recipe.first_tuned_block}" for number in range(recipe.num_views)]
    views = [cache.remember(name, partial(states_of, number)) for number, name in enumerate(names)]
    captions = [caption for five in photographs.captions for caption in five]
    print(f"{len(captions)} captions", flush=True)
    name = f"seed{recipe.seed}-sentences"
    return views, cache.remember(name, lambda: sentence_embeddings(model.text_encoder, captions))


def _print(figures: dict[str, Recall]) -> None:
    for name, (one, five, ten) in figures.items():
        print(f"  {name:16} R@1/5/10 = {one:.1f} / {five:.1f} / {ten:.1f}", flush=True)


if __name__ == "__main__":
    main()
