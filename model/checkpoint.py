"""What training changed, as one safetensors file: half precision on disk, single precision in use.

A checkpoint holds the weights whose names begin with one of `config.trained`, and in its metadata the settings and the
checksums of the pretrained files under it. Normalisation statistics are not trained and stay those of the pretrained
files, but for a part that the checkpoint brings whole. Matrices of `config.quantized` parts are int8, each with a
tensor of the same name and ".scales". `read_header` needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from model.config import VideoBertConfig
from model.errors import ModelError, WeightsDamagedError, WeightsNotFoundError
from model.safetensors_file import SUFFIX, read_safetensors_header, write_safetensors

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "videobert-checkpoint-1"
_SCALES = ".scales"
_STATISTICS = (".running_mean", ".running_var", ".input_range")
_MAX_NAMES_SHOWN = 3


class Header(NamedTuple):
    """What a checkpoint says of itself.

    Attributes:
        config: the settings of the model.
        base: SHA-256 of each pretrained file it was trained on, by role.
        shapes: of each weight, by name.
    """

    config: VideoBertConfig
    base: dict[str, str]
    shapes: dict[str, tuple[int, ...]]


def read_header(path: Path) -> Header:
    """Read settings and shapes, and check that the file is as long as it says.

    Raises:
        WeightsNotFoundError: there is no such file.
        WeightsDamagedError: it is cut short, or no checkpoint of this format.
    """
    if not path.is_file():
        raise WeightsNotFoundError(f"there is no checkpoint {str(path)!r}; give the path of a {SUFFIX} file")
    facts, tensors = read_safetensors_header(path)
    if facts.get("format") != FORMAT:
        raise WeightsDamagedError(f"{path} must have the format {FORMAT!r}, got {facts.get('format')!r}")
    try:
        shapes = {name: entry.shape for name, entry in tensors.items() if not name.endswith(_SCALES)}
        return Header(VideoBertConfig.from_dict(json.loads(facts["config"])), json.loads(facts["base"]), shapes)
    except (ModelError, ValueError, KeyError, TypeError) as error:
        raise WeightsDamagedError(f"{path} holds settings that this version cannot read: {error}") from error


def save_checkpoint(model: nn.Module, config: VideoBertConfig, base: Mapping[str, str], path: Path) -> None:
    """Write the trained weights of `model`, which has the settings `config`, to `path`.

    Args:
        model: a `VideoBert`.
        config: its settings; `config.trained` says what is written.
        base: SHA-256 of each pretrained file under it, by role.
        path: ends in ".safetensors".
    """
    tensors: dict[str, Tensor] = {}
    for name, weight in trained_weights(model, config).items():
        tensors |= _stored(name, weight.detach().cpu(), config)
    facts = {"format": FORMAT, "config": json.dumps(config.to_dict()), "base": json.dumps(dict(base))}
    write_safetensors(tensors, path, facts)


def load_checkpoint(module: nn.Module, config: VideoBertConfig, path: Path, prefix: str = "") -> None:
    """Copy the trained weights of `module` from `path`.

    Args:
        module: a `VideoBert`, or the part of one that `prefix` names.
        config: the settings of the whole model.
        path: where the checkpoint is.
        prefix: what the names of the module's weights begin with in the whole model, e.g. "text_encoder."; with one,
            other weights of the file are left alone.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `read_header`; or names or shapes are not those of the settings.
    """
    import torch
    from safetensors import safe_open

    shapes = {
        name: shape
        for name, shape in read_header(path).shapes.items()
        if name.startswith(prefix) and not name.startswith(config.comes_ready)
    }
    weights = trained_weights(module, config, prefix)
    _check_names(path, expected=set(weights), found=set(shapes))
    for name, weight in weights.items():
        if tuple(weight.shape) != shapes[name]:
            raise WeightsDamagedError(f"{path}: {name} must be {list(weight.shape)}, got {list(shapes[name])}")
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name, weight in weights.items():
            stored = file.get_tensor(name)
            weight.copy_(_dequantized(path, file, name, stored) if stored.dtype == torch.int8 else stored)


def _stored(name: str, weight: Tensor, config: VideoBertConfig) -> dict[str, Tensor]:
    """The tensors of a file that hold a weight."""
    from model.int8 import is_stored_as_int8, quantize_rows

    if is_stored_as_int8(name, weight, config):
        codes, scales = quantize_rows(weight)
        return {name: codes.contiguous(), name + _SCALES: scales}
    is_statistic = name.endswith(_STATISTICS)  # for which half precision has no room
    return {name: (weight.float() if is_statistic else weight.half()).contiguous()}


def _dequantized(path: Path, file: Any, name: str, codes: Tensor) -> Tensor:
    from model.int8 import dequantize_rows

    if name + _SCALES not in file.keys():  # noqa: SIM118 - it is no dictionary
        raise WeightsDamagedError(f"{path}: {name} is int8, and its scales are missing; write the checkpoint again")
    return dequantize_rows(codes, file.get_tensor(name + _SCALES))


def trained_weights(module: nn.Module, config: VideoBertConfig, prefix: str = "") -> dict[str, Tensor]:
    """The weights of `module` that a checkpoint brings, by their names in the whole model."""
    named = {prefix + name: weight for name, weight in module.named_parameters()}
    statistics = {prefix + name: values for name, values in module.named_buffers() if values.is_floating_point()}
    whole = tuple(f"{part}." for part in ("frame_encoder", "text_encoder") if config.brings_whole(part))
    return {name: weight for name, weight in named.items() if name.startswith(tuple(config.trained))} | {
        name: values for name, values in statistics.items() if name.startswith(whole)
    }


def _check_names(path: Path, expected: set[str], found: set[str]) -> None:
    for problem, names in (("lacks", expected - found), ("holds unknown", found - expected)):
        if names:
            shown = ", ".join(sorted(names)[:_MAX_NAMES_SHOWN]) + (", ..." if len(names) > _MAX_NAMES_SHOWN else "")
            raise WeightsDamagedError(
                f"{path} is not a checkpoint of these settings: it {problem} {len(names)} weights: {shown}"
            )
