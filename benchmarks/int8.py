"""What 8-bit integers bring and cost: `mini-int8` beside `mini`, in turns.

    python -m benchmarks.int8                                    # speed and start-up
    python -m benchmarks.int8 --data flickr8k_train.parquet      # and quality, on photographs held out as by the recipe
    python -m benchmarks.int8 --data flickr8k_train.parquet --head measured.safetensors

The machine may have other work, so times are those on the processor, of all threads, and ratios are of neighbours in
time. Start-up is importing, loading and the first frame, each in a process of its own: with an empty cache folder, then
with what that left there. The head of `mini` has seen all photographs; `python -m recipes.flickr8k --measured FILE`
writes one that has not. Clips: `python -m benchmarks.caption_to_clip --model mini-int8`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from benchmarks.report import report
from indexer.evaluate.bootstrap import Bootstrap, mean_of
from model.int8_hardware import int8_gain, integers_are_exact
from model.videobert import VideoBert
from model.weights import load_videobert
from recipes.flickr8k.data import CAPTIONS_PER_IMAGE, Photographs, read_photographs, view

_MODELS = ("mini", "mini-int8")
_FRAMES = 48
_RANKS = (1, 5, 10)
_START = (
    "import sys, numpy; from model import load_model; "
    "load_model(sys.argv[1], num_threads=1).encode_frames(numpy.zeros((1, 224, 224, 3), numpy.uint8))"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="Parquet file with the columns jpeg and captions")
    parser.add_argument("--held-out", type=int, default=1000, help="photographs that calibration has not seen")
    parser.add_argument(
        "--head",
        help="checkpoint whose head and adapter take the place of those of mini",
    )
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    figures: dict[str, object] = {
        "integers are exact on this processor": integers_are_exact(),
        "gain that is measured once": f"x {int8_gain():.2f}",
    }
    parts: list[Callable[[], dict[str, object]]] = [partial(speed, given.repeats), partial(start_up, given.repeats)]
    if given.data is not None:
        parts.append(lambda: quality(read_photographs(given.data, seed=0).part(0, given.held_out), given.head))
    for part in parts:
        found = part()
        figures |= found
        print(*(f"   {name}: {value}" for name, value in found.items()), sep="\n", file=sys.stderr, flush=True)
    report("int8", figures)


def speed(repeats: int) -> dict[str, object]:
    """Frames a second of mini-int8 by those of mini, in one process of one thread and in two at the same time."""
    spawn = multiprocessing.get_context("spawn")
    workers = {name: [ProcessPoolExecutor(1, spawn, _load, (name,)) for _ in range(2)] for name in _MODELS}
    figures: dict[str, object] = {}
    for num in (1, 2):
        taken: dict[str, list[float]] = {name: [] for name in _MODELS}
        for _ in range(repeats + 1):
            for name, pools in workers.items():
                asked = [pool.submit(_processor_seconds) for pool in pools[:num]]
                taken[name].append(sum(each.result() for each in asked) / (num * _FRAMES))
        figures |= _compared(f"{num} of one thread, processor ms a frame", {n: t[1:] for n, t in taken.items()}, 1000)
    for pools in workers.values():
        for pool in pools:
            pool.shutdown()
    return figures


def start_up(repeats: int) -> dict[str, object]:
    """Processor seconds until the first frame is encoded."""
    taken: dict[str, dict[str, list[float]]] = {state: {name: [] for name in _MODELS} for state in ("cold", "warm")}
    for _ in range(repeats):
        for name in _MODELS:
            with tempfile.TemporaryDirectory() as cache:
                for times in taken.values():
                    before = _children_s()
                    environment = {**os.environ, "XDG_CACHE_HOME": cache}
                    subprocess.run([sys.executable, "-c", _START, name], check=True, env=environment)
                    times[name].append(_children_s() - before)
    return {
        what: figure
        for state, times in taken.items()
        for what, figure in _compared(f"start-up with a {state} cache, processor s", times, 1).items()
    }


def quality(photographs: Photographs, head: str | None = None) -> dict[str, object]:
    """Recall by the frames of both models, and how far these agree."""
    frames = torch.from_numpy(np.stack([view(jpeg, 0, seed=0) for jpeg in photographs.jpegs]))
    models = {name: load_videobert(name, num_threads=1) for name in _MODELS}
    features = [model.encode_frames(frames) for model in models.values()]
    heads = [load_videobert(head)] * len(models) if head else list(models.values())
    ranks = {name: _ranks(model, each, photographs) for name, model, each in zip(models, heads, features, strict=True)}
    cosines = F.cosine_similarity(features[0], features[1], dim=2)
    classes = [models["mini"].frame_encoder.logits(each).argmax(dim=-1) for each in features]
    figures: dict[str, object] = {
        f"{name}, R@1/5/10 of {len(frames)} photographs by {len(rank)} captions, %": "/".join(
            f"{100 * (rank < k).mean():.1f}" for k in _RANKS
        )
        for name, rank in ranks.items()
    }
    return figures | {
        "R@10 gained by integers, points": _gain_at_10(*ranks.values()),
        "features, cosine with mini": f"{cosines.mean():.4f} on average, {cosines.min():.4f} at least",
        "ImageNet's best class is another one, %": round(100 * (classes[0] != classes[1]).float().mean().item(), 1),
    }


def _ranks(model: VideoBert, features: Tensor, photographs: Photographs) -> NDArray[np.int64]:
    """Of the right photograph, from 0, for every caption."""
    num = len(photographs)
    videos = model.encode_video(features.half()[:, None], torch.ones(num, 1, dtype=torch.bool), torch.zeros(num, 1))
    queries = model.encode_text([caption for five in photographs.captions for caption in five])
    similarity, target = queries @ videos.T, torch.arange(num).repeat_interleave(CAPTIONS_PER_IMAGE)
    ranks: NDArray[np.int64] = (similarity > similarity.gather(1, target[:, None])).sum(dim=1).numpy()
    return ranks


def _gain_at_10(before: NDArray[np.int64], after: NDArray[np.int64]) -> str:
    """The difference on the same captions; the interval draws photographs with all their captions."""
    gained = 100.0 * ((after < 10).astype(float) - (before < 10))
    figure = Bootstrap(np.arange(len(gained)) // CAPTIONS_PER_IMAGE).figure(mean_of(gained))
    return f"{figure.value:+.2f} (95 % interval {figure.low:+.2f} to {figure.high:+.2f})"


def _compared(what: str, taken: dict[str, list[float]], factor: float) -> dict[str, object]:
    before, after = (taken[name] for name in _MODELS)
    ratios = [one / other for one, other in zip(before, after, strict=True)]
    figures: dict[str, object] = {
        f"{name}, {what}": f"{factor * statistics.median(times):.2f}" for name, times in taken.items()
    }
    return figures | {
        f"{what}: mini / mini-int8": f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    }


_encode: Callable[[], Tensor]


def _load(name: str) -> None:
    global _encode
    model = load_videobert(name, num_threads=1)
    noise = torch.randint(256, (_FRAMES, 224, 224, 3), dtype=torch.uint8)
    _encode = lambda: model.encode_frames(noise)  # noqa: E731


def _processor_seconds() -> float:
    started_s = time.process_time()
    _encode()
    return time.process_time() - started_s


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
