"""What 8-bit integers and pruning cost and bring: size, speed and recall of `mini` beside its compressed forms.

    python -m benchmarks.compression --data flickr8k_train.parquet --clips FOLDER

The data has the columns jpeg and captions. Its first 1,000 photographs, in the recipe's order, are those that the
recipe holds out; 64 others calibrate and choose neurons. The folder of clips has a manifest.tsv, as for the recipe.
Without data nothing is measured. All models answer in turns, so speeds are ratios to the original in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.report import report
from indexer.compression.comparison import Looked, size_bytes
from indexer.compression.compress import Material
from indexer.compression.samples import Sample
from model.checkpoint import save_checkpoint
from model.pruning import pruned_model
from model.quantization import quantized_model
from model.videobert import VideoBert
from model.weights import base_checksums, load_videobert
from recipes.flickr8k.data import Clip, Photographs, read_clips, read_photographs, view
from recipes.flickr8k.evaluate import recall

_NUM_CALIBRATED = 64
_PHOTOGRAPHS_AT_ONCE = 32
_NUM_TIMED_QUERIES = 60
_ORIGINAL = "original"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Parquet file with the columns jpeg and captions")
    parser.add_argument("--clips", type=Path, help="folder with captioned clips and manifest.tsv")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--held-out", type=int, default=1000, help="photographs that the model was not trained on")
    parser.add_argument(
        "--captions", type=int, default=5, help="captions of each photograph that are asked for, 1 to 5"
    )
    parser.add_argument("--amounts", default="0.1,0.2,0.3,0.5", help="shares of neurons to prune")
    arguments = parser.parse_args()
    if arguments.data is None:
        print("compression: nothing measured, as it needs --data; see --help", file=sys.stderr)
        return
    amounts = [float(amount) for amount in arguments.amounts.split(",")]
    photographs = read_photographs(arguments.data, seed=0)
    held_out = photographs.part(0, arguments.held_out)
    material = _material(photographs.part(arguments.held_out, arguments.held_out + _NUM_CALIBRATED))
    clips = read_clips(arguments.clips) if arguments.clips is not None else []
    with tempfile.TemporaryDirectory() as scratch:
        names = {_ORIGINAL: arguments.model, **write_variants(arguments.model, material, amounts, Path(scratch))}
        report("compression", measure(names, held_out, clips, arguments.captions))


def write_variants(name: str, material: Material, amounts: Sequence[float], folder: Path) -> dict[str, str]:
    """Paths of the compressed forms by what they are."""
    original = load_videobert(name, runtime="torch")
    paths: dict[str, str] = {}

    def write(what: str, model: VideoBert) -> None:
        path = folder / f"{len(paths)}.safetensors"
        save_checkpoint(model, model.config, base_checksums(model.config), path)
        paths[what] = str(path)
        print(f"written: {what}", file=sys.stderr, flush=True)

    write("int8 text", quantized_model(original, ("text",)))
    write("int8 all", quantized_model(original, ("frames", "fusion", "text"), material.frames()))
    for amount in amounts:
        pruned = pruned_model(original, ("text",), amount, material.texts())
        write(f"pruned {amount:.0%}", pruned)
        if amount == amounts[0]:
            both = quantized_model(pruned, ("frames", "fusion", "text"), material.frames())
            write(f"pruned {amount:.0%}, then int8 all", both)
    return paths


def measure(
    names: dict[str, str], photographs: Photographs, clips: Sequence[Clip], num_captions: int
) -> dict[str, object]:
    """One row a model."""
    models = {what: load_videobert(name) for what, name in names.items()}
    query_ms = _query_ms(models, [captions[0] for captions in photographs.captions[:_NUM_TIMED_QUERIES]])
    # Where the frame encoder is the original's, so are the features: it looks once for all of them.
    seeing = {what: model for what, model in models.items() if what == _ORIGINAL or model.config.has_int8_frames}
    on_photographs = look(
        seeing, [Sample(view(jpeg, 0, 0)[None], np.zeros(1, np.float32), ()) for jpeg in photographs.jpegs]
    )
    on_clips = look(seeing, [Sample(clip.frames, np.arange(len(clip.frames), dtype=np.float32), ()) for clip in clips])
    queries = [caption for captions in photographs.captions for caption in captions[:num_captions]]
    target = torch.arange(len(photographs)).repeat_interleave(num_captions)
    rows: dict[str, object] = {"queries": f"{len(queries)} of {len(photographs)} photographs; {len(clips)} clips"}
    for what, model in models.items():
        seen = what if what in seeing else _ORIGINAL
        found = recall(model.encode_text(queries) @ on_photographs[seen].videos().T, target)
        row = [
            f"{size_bytes(names[what]) / 1e6:6.1f} MB",
            f"frames/s x {on_photographs[seen].rate() / on_photographs[_ORIGINAL].rate():.2f}",
            f"query time x {query_ms[what] / query_ms[_ORIGINAL]:.2f}",
            f"R@1/5/10 {_slashed(found)}",
        ]
        if clips:
            asked = model.encode_text([clip.caption for clip in clips])
            row.append(
                f"clips R@1/5 {_slashed(recall(asked @ on_clips[seen].videos().T, torch.arange(len(clips)))[:2])}"
            )
        rows[what] = ", ".join(row)
        print(f"{what}: {rows[what]}", file=sys.stderr, flush=True)
    return rows


def look(models: dict[str, VideoBert], samples: Sequence[Sample]) -> dict[str, Looked]:
    """What each model makes of the samples, in turns."""
    looked = {what: Looked(model) for what, model in models.items()}
    for start in range(0, len(samples), _PHOTOGRAPHS_AT_ONCE):
        for one in looked.values():
            one.look_at(samples[start : start + _PHOTOGRAPHS_AT_ONCE])
    return looked


def _material(photographs: Photographs) -> Material:
    pairs = zip(photographs.jpegs, photographs.captions, strict=True)
    return Material(
        samples=[Sample(view(jpeg, 0, 0)[None], np.zeros(1, np.float32), tuple(five)) for jpeg, five in pairs]
    )


def _query_ms(models: dict[str, VideoBert], queries: Sequence[str]) -> dict[str, float]:
    taken: dict[str, list[float]] = {what: [] for what in models}
    for query in queries:
        for what, model in models.items():
            started_s = time.perf_counter()
            vector: Tensor = model.encode_text([query])
            taken[what].append(time.perf_counter() - started_s)
            assert vector.isfinite().all()
    return {what: 1000 * statistics.median(seconds) for what, seconds in taken.items()}


def _slashed(values: Sequence[float]) -> str:
    return "/".join(f"{value:.1f}" for value in values)


if __name__ == "__main__":
    main()
