"""A compressed model beside the one it was made from: size, speed, and how far the two agree.

Both run in turns on the same frames and texts, so that what else the machine does falls on both.

Shapes: N samples, M captions of all together, T frames of the longest, E = `embedding_dim`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.compression.samples import Sample
from indexer.training.metrics import RANKS, retrieval_metrics
from model.facts import checkpoint_path, videobert_config
from model.labels import imagenet_classes
from model.pretrained import pretrained_paths
from model.videobert import VideoBert

DIFFERENCE, RATIO = "difference", "ratio"
_FRAMES_AT_ONCE = 32
_NUM_TIMED_QUERIES = 40
_NUM_NEIGHBOURS = 10
_EVERY_LABEL = 2  # every second one will do


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One thing measured of both models.

    Attributes:
        name: what, with its unit.
        before, after: of the original and of the compressed model; `before` is None where the original is the measure.
        kind: whether `change` is after - before or after / before.
    """

    name: str
    before: float | None
    after: float
    kind: str = DIFFERENCE

    @property
    def change(self) -> float | None:
        """None where there is nothing to compare with."""
        if self.before is None or (self.kind == RATIO and not self.before):
            return None
        return self.after / self.before if self.kind == RATIO else self.after - self.before


class Pair:
    """Two loaded models, the original first.

    Args:
        names: by which `load_videobert` knows them.
        models: of these names.
    """

    def __init__(self, names: tuple[str, str], models: tuple[VideoBert, VideoBert]) -> None:
        self.names, self.models = names, models

    def size(self) -> list[Figure]:
        """Of all files of weights that a model reads, in MB."""
        before, after = (size_bytes(name) / 1e6 for name in self.names)
        return [Figure(name="weights, MB", before=before, after=after)]

    def texts(self) -> list[Figure]:
        """Time of a query, and how far the two agree on everyday sentences and on the names of 500 things."""
        queries = files("indexer.query").joinpath("background_queries.txt").read_text(encoding="utf-8").splitlines()
        labels = [f"a photo of a {name}" for name, _ in imagenet_classes()[::_EVERY_LABEL]]
        (asked, found), (asked_too, found_too) = [
            (model.encode_text(queries), model.encode_text(labels)) for model in self.models
        ]
        kept = _neighbours_kept(asked @ found.T, asked_too @ found_too.T)
        return [
            self._query_time(queries[:_NUM_TIMED_QUERIES]),
            Figure(name="texts, cosine with the original", before=None, after=_mean_cosine(asked, asked_too)),
            Figure(name=f"texts, of {_NUM_NEIGHBOURS} neighbours kept, %", before=None, after=100 * kept),
        ]

    def speed(self) -> list[Figure]:
        """Frames a second, on noise."""
        side = self.models[0].frame_size_px
        noise = torch.randint(256, (_FRAMES_AT_ONCE, side, side, 3), dtype=torch.uint8)
        seconds: tuple[list[float], list[float]] = ([], [])
        for _ in range(3):
            for model, taken in zip(self.models, seconds, strict=True):
                taken.append(_seconds(lambda model=model: model.encode_frames(noise))[0])  # type: ignore[misc]
        before, after = (len(noise) / min(taken) for taken in seconds)
        return [Figure(name="frames a second", before=before, after=after, kind=RATIO)]

    def pictures(self, samples: Iterable[Sample]) -> list[Figure]:
        """Frames a second, agreement on frames, and, where there are captions, how often they find their picture."""
        looked = [Looked(model) for model in self.models]
        captions: list[tuple[str, ...]] = []
        for batch in _batches(samples):
            captions += [sample.captions for sample in batch]
            for one in looked:
                one.look_at(batch)
        before, after = looked
        agreement = _mean_cosine(before.frames(), after.frames())
        figures = [
            Figure(name="frames a second", before=before.rate(), after=after.rate(), kind=RATIO),
            Figure(name="frames, cosine with the original", before=None, after=agreement),
        ]
        return figures + (_recall(before, after, captions) if any(captions) else [])

    def _query_time(self, queries: Sequence[str]) -> Figure:
        seconds: tuple[list[float], list[float]] = ([], [])
        for query in queries:
            for model, taken in zip(self.models, seconds, strict=True):
                taken.append(_seconds(lambda model=model, query=query: model.encode_text([query]))[0])  # type: ignore[misc]
        before, after = (1000 * statistics.median(taken) for taken in seconds)
        return Figure(name="a query, ms", before=before, after=after, kind=RATIO)


class Looked:
    """What one model has made of the samples so far."""

    def __init__(self, model: VideoBert) -> None:
        self.model = model
        self._features: list[Tensor] = []  # a sample each, [T, K, D] in half precision, as an index holds them
        self._times_s: list[np.ndarray] = []
        self._seconds, self._num_timed = 0.0, 0

    def look_at(self, samples: Sequence[Sample]) -> None:
        pixels = np.concatenate([sample.frames for sample in samples])
        seconds, features = _seconds(lambda: self.model.encode_frames(pixels))
        if self._features:  # the first batch warms up
            self._seconds, self._num_timed = self._seconds + seconds, self._num_timed + len(pixels)
        elif len(pixels):
            self._first_rate = len(pixels) / seconds
        self._features += features.half().split([len(sample.frames) for sample in samples])
        self._times_s += [sample.times_s for sample in samples]

    def rate(self) -> float:
        """Frames a second."""
        return self._num_timed / self._seconds if self._num_timed else self._first_rate

    def frames(self) -> Tensor:
        """Of all samples, float [F, K * D]."""
        return torch.cat(self._features).float().flatten(1)

    def videos(self) -> Tensor:
        """A vector a sample, float [N, E]."""
        longest = max(len(one) for one in self._features)
        features = torch.zeros(len(self._features), longest, *self._features[0].shape[1:])
        mask, times_s = torch.zeros(features.shape[:2], dtype=torch.bool), torch.zeros(features.shape[:2])
        for row, (one, times) in enumerate(zip(self._features, self._times_s, strict=True)):
            features[row, : len(one)], mask[row, : len(one)] = one.float(), True
            times_s[row, : len(one)] = torch.from_numpy(times)
        return self.model.encode_video(features, mask, times_s)


def size_bytes(name: str) -> int:
    """Of all files of weights that `load_videobert(name)` reads."""
    checkpoint = checkpoint_path(name)
    paths = {*pretrained_paths(videobert_config(name)), *([] if checkpoint is None else [checkpoint])}
    return sum(path.stat().st_size for path in paths)


def _recall(before: Looked, after: Looked, captions: Sequence[Sequence[str]]) -> list[Figure]:
    texts = [text for some in captions for text in some]
    target = np.repeat(np.arange(len(captions)), [len(some) for some in captions])
    metrics = []
    for one in (before, after):
        similarity = one.model.encode_text(texts) @ one.videos().T
        metrics.append(retrieval_metrics(similarity.cpu().numpy(), target))
    names = [f"recall@{rank}" for rank in RANKS]
    return [Figure(name=f"{name}, %", before=metrics[0][name], after=metrics[1][name]) for name in names]


def _batches(samples: Iterable[Sample]) -> Iterable[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if sum(len(one.frames) for one in batch) >= _FRAMES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _neighbours_kept(before: Tensor, after: Tensor) -> float:
    """Share of the ten most similar columns of each row that are so in both: similarities [M, N], 0 to 1."""
    nearest = [similarity.topk(_NUM_NEIGHBOURS, dim=1).indices for similarity in (before, after)]
    return (nearest[0][:, :, None] == nearest[1][:, None, :]).any(dim=2).float().mean().item()


def _mean_cosine(before: Tensor, after: Tensor) -> float:
    return F.cosine_similarity(before, after, dim=1).mean().item()


def _seconds(call: Callable[[], Tensor]) -> tuple[float, Tensor]:
    started_s = time.perf_counter()
    result = call()
    return time.perf_counter() - started_s, result
