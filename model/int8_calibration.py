"""The frame encoder of `mini` in 8-bit integers, from files: its weights in floats, and a few kB of calibration.

The calibration file holds what cannot be made from the weights alone: the range of each convolution's input, and the
last bias of each block with what rounding adds to the mean taken out. The weights are rounded when they are loaded.
`python -m recipes.flickr8k.calibrate` writes the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from model.errors import WeightsDamagedError
from model.frame_encoder import EfficientNetLite0, InvertedResidual
from model.int8 import add_input_ranges, dequantize_rows, quantize_rows, quantized_convolutions
from model.safetensors_file import read_safetensors_header, write_safetensors

FORMAT = "videobert-int8-calibration-1"
_PREFIX = "frame_encoder."


@torch.no_grad()
def round_convolutions(encoder: EfficientNetLite0) -> None:
    """Rounds the weights of those that compute in int8 to codes times scales, and gives each a range to be filled."""
    for convolution in quantized_convolutions(encoder).values():
        convolution.weight.copy_(dequantize_rows(*quantize_rows(convolution.weight)))
    add_input_ranges(encoder)


def save_calibration(encoder: EfficientNetLite0, base: Mapping[str, str], path: Path) -> None:
    """Write what calibration found. Equal findings make equal files.

    Args:
        encoder: calibrated.
        base: SHA-256 of the files that its weights came from, by role.
        path: ends in ".safetensors".
    """
    tensors = {name: values.float().contiguous() for name, values in _findings(encoder).items()}
    write_safetensors(tensors, path, {"format": FORMAT, "base": json.dumps(dict(base), sort_keys=True)})


@torch.no_grad()
def load_calibration(encoder: EfficientNetLite0, path: Path) -> None:
    """Round the weights of `encoder`, which are floats as yet, and copy what calibration found from `path`.

    Raises:
        WeightsDamagedError: it is no such file, or one of another network.
    """
    from safetensors.torch import load_file

    header = read_safetensors_header(path)
    if header.metadata.get("format") != FORMAT:
        raise WeightsDamagedError(f"{path} must have the format {FORMAT!r}, got {header.metadata.get('format')!r}")
    round_convolutions(encoder)
    findings = _findings(encoder)
    shapes = {name: tuple(values.shape) for name, values in findings.items()}
    if shapes != {name: entry.shape for name, entry in header.tensors.items()}:
        raise WeightsDamagedError(
            f"{path} is the calibration of another network: write it anew with `python -m recipes.flickr8k.calibrate`"
        )
    for name, values in load_file(path).items():
        findings[name].copy_(values)


@torch.no_grad()
def load_tuned_layers(encoder: EfficientNetLite0, path: Path) -> None:
    """Copy the weights of the frame encoder that a checkpoint brings.

    Raises:
        WeightsDamagedError: it brings none, or others than this network has.
    """
    from safetensors import safe_open

    own = {_PREFIX + name: weight for name, weight in encoder.named_parameters()}
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(_PREFIX)]  # noqa: SIM118 - it is no dictionary
        if not names or not own.keys() >= set(names):
            raise WeightsDamagedError(f"{path} must hold tuned layers of EfficientNet-Lite0, got {len(names)} tensors")
        for name in names:
            own[name].copy_(file.get_tensor(name))


def _findings(encoder: EfficientNetLite0) -> dict[str, Tensor]:
    """By name, the tensors of the network that calibration sets."""
    convolutions = quantized_convolutions(encoder).items()
    ranges = {f"{name}.input_range": module.input_range for name, module in convolutions}
    blocks = [(number, block) for number, block in enumerate(encoder.blocks) if isinstance(block, InvertedResidual)]
    biases = {f"blocks.{number}.project.1.bias": block.project[1].bias for number, block in blocks}
    return {name: values for name, values in (ranges | biases).items() if isinstance(values, Tensor)}
