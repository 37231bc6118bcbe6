"""A model in 8-bit integers, made after training: rounded weights, and for the CNN the ranges of its activations.

Shapes: N frames, S = side of a frame in pixels.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019, section 4.2, for
the correction of what rounding adds to a layer's mean. Departure: means are measured on pictures rather than derived
from the normalisation's statistics, and once a block rather than once a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import PARTS, VideoBertConfig
from model.errors import ModelError
from model.frame_encoder import EfficientNetLite0, InvertedResidual
from model.int8 import PART_PREFIXES, dequantize_rows, is_stored_as_int8, quantize_rows, quantized_convolutions
from model.int8_calibration import round_convolutions
from model.videobert import VideoBert

FEWEST_CALIBRATION_FRAMES = 8
_FRAMES_PER_BATCH = 32


def check_parts(model: VideoBert, parts: Collection[str], possible: Collection[str] = PARTS) -> None:
    """Whether these parts of this model can be compressed.

    Raises:
        ModelError: there is no part, an unknown one, one that cannot be, or the model is quantised already.
    """
    for part in parts:
        if part not in possible:
            raise ModelError(f"the parts must be of {', '.join(possible)}, got {part!r}")
    if not parts:
        raise ModelError(f"the parts must name at least one of {', '.join(possible)}, got none")
    if model.config.quantized:
        raise ModelError(
            f"the model {model.config.name!r} is quantised already ({', '.join(model.config.quantized)}): start from "
            "the one it was made from; prune first, quantise last"
        )
    if "frames" in parts and model.config.has_int8_frames:
        raise ModelError(f"the frame encoder of {model.config.name!r} is in 8-bit integers already: leave frames out")
    if "frames" in parts and not isinstance(model.frame_encoder, EfficientNetLite0):
        raise ModelError(
            f"the part frames must be EfficientNet-Lite0, got {model.config.frames.backbone!r}: leave it out"
        )


def quantized_model(model: VideoBert, parts: Collection[str], frames: Tensor | None = None) -> VideoBert:
    """A copy of the model whose weights are what a checkpoint of int8 holds, still as floats.

    Args:
        model: on the CPU, with the runtime "torch".
        parts: of "frames", "fusion" and "text".
        frames: uint8 [N, S, S, 3] to calibrate the frame encoder on: pictures of the kind that it is for.

    Raises:
        ModelError: as `check_parts`; or there are fewer than 8 frames for the part frames.
    """
    check_parts(model, parts)
    if "frames" in parts and (frames is None or len(frames) < FEWEST_CALIBRATION_FRAMES):
        raise ModelError(
            f"the part frames needs at least {FEWEST_CALIBRATION_FRAMES} frames to calibrate on, "
            f"got {0 if frames is None else len(frames)}"
        )
    quantized = copy.deepcopy(model)
    quantized.config = quantized_config(model.config, parts)
    _round_weights(quantized)
    if "frames" in parts and frames is not None:
        assert isinstance(model.frame_encoder, EfficientNetLite0)
        assert isinstance(quantized.frame_encoder, EfficientNetLite0)
        calibrate(model.frame_encoder, quantized.frame_encoder, frames)
    return quantized


def calibrate(original: EfficientNetLite0, quantized: EfficientNetLite0, frames: Tensor) -> None:
    """Makes a copy of an encoder compute in 8-bit integers.

    Args:
        original: as it was, in floats.
        quantized: the copy; its convolutions are rounded, and get ranges and corrected biases.
        frames: uint8 [N, S, S, 3] to calibrate on.
    """
    round_convolutions(quantized)
    set_input_ranges(original, quantized, frames)
    correct_means(original, quantized, frames)


def quantized_config(config: VideoBertConfig, parts: Iterable[str]) -> VideoBertConfig:
    """The settings of the model in int8: its checkpoint brings the quantised parts whole."""
    parts = tuple(part for part in PARTS if part in parts)
    return replace(with_whole_parts(config, parts), quantized=parts)


def with_whole_parts(config: VideoBertConfig, parts: Iterable[str]) -> VideoBertConfig:
    """The settings of a model whose checkpoint brings these parts whole."""
    whole = [PART_PREFIXES[part] for part in parts]
    if "fusion." in whole:
        whole.append("gate")
    kept = [name for name in config.trained if not name.startswith(tuple(whole))]
    return replace(config, trained=(*kept, *whole))


@torch.no_grad()
def _round_weights(model: VideoBert) -> None:
    for name, weight in model.named_parameters():
        if is_stored_as_int8(name, weight, model.config):
            weight.copy_(dequantize_rows(*quantize_rows(weight)))


@torch.no_grad()
def set_input_ranges(original: EfficientNetLite0, quantized: EfficientNetLite0, frames: Tensor) -> None:
    """Sets the range of each convolution's input: from the mean lowest to the mean highest number of a frame.

    The few numbers beyond are cut: with the very lowest and highest the steps are coarser, which costs more. Zero is
    one of the steps, so that padding stays exact.
    """
    extremes: dict[str, list[Tensor]] = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor]) -> None:
            states = inputs[0].flatten(1)
            extremes.setdefault(name, []).append(torch.stack([states.amin(dim=1), states.amax(dim=1)]))

        return hook

    convolutions = quantized_convolutions(original)
    hooks = [module.register_forward_pre_hook(record(name)) for name, module in convolutions.items()]
    try:
        for batch in frames.split(_FRAMES_PER_BATCH):
            original(batch)
    finally:
        for hook in hooks:
            hook.remove()
    for name, module in quantized_convolutions(quantized).items():
        low, high = torch.cat(extremes[name], dim=1).mean(dim=1).tolist()
        module.input_range = _with_zero(min(low, 0.0), max(high, 1e-6))


def _with_zero(low: float, high: float) -> Tensor:
    """The range moved by at most half a step, so that zero is one of its 256 numbers."""
    step = (high - low) / 255
    start = -round(-low / step) * step
    return torch.tensor([start, start + 255 * step])


@torch.no_grad()
def correct_means(original: EfficientNetLite0, quantized: EfficientNetLite0, frames: Tensor) -> None:
    """Takes out of the last bias of each block what rounding adds to the mean of each channel."""
    right = [F.relu6(original.stem(_pixels(batch))) for batch in frames.split(_FRAMES_PER_BATCH)]
    rounded = list(right)  # the stem is not quantised
    for block, rounded_block in zip(original.blocks, quantized.blocks, strict=True):
        assert isinstance(rounded_block, InvertedResidual)
        right, rounded = [block(states) for states in right], [rounded_block(states) for states in rounded]
        surplus = _mean_of_channels(rounded) - _mean_of_channels(right)
        norm = rounded_block.project[1]
        assert isinstance(norm, nn.BatchNorm2d)
        norm.bias.sub_(surplus)
        rounded = [states - surplus[:, None, None] for states in rounded]


def _pixels(frames: Tensor) -> Tensor:
    return (frames.permute(0, 3, 1, 2).float() - 127) / 128


def _mean_of_channels(batches: list[Tensor]) -> Tensor:
    """Batches [N, C, H, W] -> [C]."""
    return torch.cat([states.mean(dim=(2, 3)) for states in batches]).mean(dim=0)
