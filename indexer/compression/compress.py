"""`videobert quantize` and `prune`: load a model, compress it, write it, load what was written, compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from indexer.compression.comparison import Figure, Pair
from indexer.compression.samples import Data, Sample, read_data, read_samples
from indexer.errors import UsageError
from indexer.store.outfile import whole_file
from indexer.training.records import Problem
from model.checkpoint import save_checkpoint
from model.frame_encoder import EfficientNetLite0
from model.labels import imagenet_classes
from model.pruning import Moments, pruned_model
from model.quantization import FEWEST_CALIBRATION_FRAMES, quantized_model
from model.safetensors_file import SUFFIX
from model.videobert import VideoBert
from model.weights import base_checksums, canonical_name, load_videobert

DEFAULT_AMOUNT = 0.1
LARGEST_LOSS = 1.0  # points of recall@10
_EVERY_DESCRIPTION = 4  # of ImageNet's classes: 250 texts to choose neurons by


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """What was written, beside what it was made from.

    Attributes:
        out: the checkpoint.
        parts: those compressed.
        fingerprint: of the new model.
        figures: both models measured.
        problems: records of the data that could not be read.
    """

    out: str
    parts: tuple[str, ...]
    fingerprint: str
    figures: list[Figure]
    problems: list[Problem] = field(default_factory=list)

    @property
    def recall_lost(self) -> float:
        """Points of recall@10 that it costs; 0 where it was not measured."""
        changes = [figure.change or 0.0 for figure in self.figures if figure.name.startswith("recall@10")]
        return -changes[0] if changes else 0.0


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a model is compressed by: samples that it is not measured with. Empty without data."""

    samples: list[Sample]

    def frames(self) -> torch.Tensor:
        """Uint8 [F, S, S, 3] of all samples."""
        return torch.from_numpy(np.concatenate([sample.frames for sample in self.samples]))

    def texts(self) -> list[str]:
        """Their captions, and descriptions of things."""
        captions = [text for sample in self.samples for text in sample.captions]
        return captions + [description for _, description in imagenet_classes()[::_EVERY_DESCRIPTION]]

    def moments(self, model: VideoBert) -> Moments | None:
        """Each sample's first frame with its first caption, as a transcript."""
        spoken = [sample for sample in self.samples if sample.captions]
        if not spoken:
            return None
        features = model.encode_frames(np.stack([sample.frames[0] for sample in spoken]))[:, None]
        mask = torch.ones(len(spoken), 1, dtype=torch.bool)
        return Moments(features, mask, torch.zeros(len(spoken), 1), [sample.captions[0] for sample in spoken])


def quantize(name: str, out: str, *, parts: Sequence[str] | None = None, data: str | None = None) -> Compressed:
    """Writes the model in 8-bit integers.

    Args:
        name: of the model, as `load_videobert` takes it.
        out: the checkpoint to write.
        parts: of "frames", "fusion" and "text"; None: all, but frames only with data to calibrate on.
        data: as `read_data`; without it, recall is not measured.

    Raises:
        UsageError: `out` or `data` cannot be used, or the part frames is asked for without data.
        ModelError: as `load_videobert` and `quantized_model`.
    """
    if parts is not None and "frames" in parts and data is None:
        raise UsageError(
            "the part frames is calibrated on pictures: give --data with images or videos, or --parts fusion,text"
        )

    def compress(model: VideoBert, material: Material) -> tuple[VideoBert, tuple[str, ...]]:
        chosen = tuple(parts) if parts is not None else _quantizable(model, material)
        return quantized_model(model, chosen, material.frames() if "frames" in chosen else None), chosen

    return _compress(name, out, data, compress)


def prune(
    name: str, out: str, *, amount: float = DEFAULT_AMOUNT, parts: Sequence[str] = ("text",), data: str | None = None
) -> Compressed:
    """Writes the model without the least important neurons of its feed-forward layers.

    Args:
        name, out, data: as `quantize`.
        amount: share of the neurons that go, 0 to 0.95.
        parts: of "text" and "fusion".

    Raises:
        UsageError: `out` or `data` cannot be used.
        ModelError: as `load_videobert` and `pruned_model`.
    """

    def compress(model: VideoBert, material: Material) -> tuple[VideoBert, tuple[str, ...]]:
        moments = material.moments(model) if "fusion" in parts else None
        return pruned_model(model, parts, amount, material.texts(), moments), tuple(parts)

    return _compress(name, out, data, compress)


def _compress(
    name: str, out: str, data: str | None, compress: Callable[[VideoBert, Material], tuple[VideoBert, tuple[str, ...]]]
) -> Compressed:
    check_out(name, out)
    given = None if data is None else read_data(data)
    model = load_videobert(name, runtime="torch")
    problems: list[Problem] = []
    compressed, parts = compress(model, _material(model, given, problems))
    with whole_file(out, "the checkpoint", f"compressed{SUFFIX}") as path:
        save_checkpoint(compressed, compressed.config, base_checksums(compressed.config), path)
    del model, compressed
    pair = Pair((name, out), (load_videobert(name), load_videobert(out)))
    figures = pair.size() + _pictures(pair, given, problems) + pair.texts()
    return Compressed(out=out, parts=parts, fingerprint=pair.models[1].fingerprint, figures=figures, problems=problems)


def check_out(name: str, out: str) -> None:
    """Whether a checkpoint can be written there.

    Raises:
        UsageError: the name has another suffix, is that of the model itself, or its folder does not exist.
    """
    if not out.endswith(SUFFIX):
        raise UsageError(f"the checkpoint must end in {SUFFIX}, got {out!r}")
    if canonical_name(name) == canonical_name(out):
        raise UsageError(f"the checkpoint must be another file than the model, got {out!r} for both")
    folder = os.path.dirname(out) or "."
    if not os.path.isdir(folder):
        raise UsageError(f"the folder of the checkpoint must exist, got {out!r}: make {folder!r} first")


def _quantizable(model: VideoBert, material: Material) -> tuple[str, ...]:
    enough = sum(len(sample.frames) for sample in material.samples) >= FEWEST_CALIBRATION_FRAMES
    with_frames = enough and isinstance(model.frame_encoder, EfficientNetLite0) and not model.config.has_int8_frames
    return ("frames", "fusion", "text") if with_frames else ("fusion", "text")


def _material(model: VideoBert, data: Data | None, problems: list[Problem]) -> Material:
    if data is None:
        return Material(samples=[])
    samples = read_samples(data.calibration, model.frame_size_px, data.has_captions, problems.append)
    return Material(samples=list(samples))


def _pictures(pair: Pair, data: Data | None, problems: list[Problem]) -> list[Figure]:
    if data is None:
        return pair.speed()
    side_px = pair.models[0].frame_size_px
    return pair.pictures(read_samples(data.measured, side_px, data.has_captions, problems.append))
