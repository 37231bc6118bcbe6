"""What the folder of a CLIP, SigLIP or SigLIP 2 model says of it: settings and checksums. Needs no torch.

Sizes are read off the shapes of the weights, as config.json leaves out what equals its defaults.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from model.errors import ModelError, WeightsDamagedError, WeightsNotFoundError
from model.hub import CONFIG_FILE, checksums, read_json, require_package, tensor_entries
from model.safetensors_file import TensorEntry, read_number

# What stands before the colon, and which values of "model_type" it may be. Most SigLIP 2 models are of type "siglip".
CLIP_FAMILIES: Mapping[str, tuple[str, ...]] = {
    "clip": ("clip",),
    "siglip": ("siglip", "siglip2"),
    "siglip2": ("siglip", "siglip2"),
}
_PIXEL_FILES = ("preprocessor_config.json", "processor_config.json")  # transformers 4 and 5
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
_TOKENIZER_SETTINGS = ("merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_SIDE_FILES = (CONFIG_FILE, *_PIXEL_FILES, *_TOKENIZER_FILES, *_TOKENIZER_SETTINGS)
_PATCHES, _POSITIONS = "vision_model.embeddings.patch_embedding.weight", "embeddings.position_embedding.weight"


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Settings of a `ClipModel`.

    Attributes:
        name: the "model_type" of transformers: "clip", "siglip" or "siglip2".
        embedding_dim: length of the vectors of the joint space.
        frame_size_px: frames come in as squares of this side.
        patch_size_px: side of a patch.
        pixel_scale: pixels of 0 to 255 are multiplied by this, before
        pixel_mean, pixel_std: of each colour channel, are taken out.
        max_tokens: longer texts are cut.
        zero_shot_temperature: inverse of the scale that the model learnt for its cosines.
        zero_shot_prompt: sentence into which a label is put, with one `{label}`.
        text_weight: how much a transcript counts beside the frames; see `ClipModel.encode_video`.
    """

    name: str
    embedding_dim: int
    frame_size_px: int
    patch_size_px: int
    pixel_scale: float
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    max_tokens: int
    zero_shot_temperature: float
    zero_shot_prompt: str = "a photo of a {label}"
    text_weight: float = 0.3

    @property
    def feature_shape(self) -> tuple[int, int]:
        """One token a frame: the projected image embedding."""
        return (1, self.embedding_dim)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON can hold."""
        return asdict(self)


def clip_config(folder: Path, family: str) -> ClipConfig:
    """Reads the settings of the model in `folder`, which was asked for as `family`.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: a file is missing, or not that of such a model.
        ModelError: the model is of another type.
    """
    kind = read_json(folder / CONFIG_FILE).get("model_type")
    if kind not in CLIP_FAMILIES[family]:
        fitting = [f"{name}:" for name, kinds in CLIP_FAMILIES.items() if kind in kinds]
        advice = f"use --model {fitting[0]}{folder}" if fitting else "other types cannot be used"
        types = " or ".join(CLIP_FAMILIES[family])
        raise ModelError(f"{family}: takes models of type {types}, got {kind!r} in {folder}; {advice}")
    tensors = tensor_entries(folder)
    scale_file, scale = _entry(tensors, "logit_scale", folder)
    patch, side = _sizes(folder, kind, {name: entry.shape for name, (_, entry) in tensors.items()})
    projection = "text_projection.weight" if kind == "clip" else "text_model.head.weight"
    return ClipConfig(
        name=kind,
        embedding_dim=_entry(tensors, projection, folder)[1].shape[0],
        frame_size_px=side,
        patch_size_px=patch,
        max_tokens=_entry(tensors, f"text_model.{_POSITIONS}", folder)[1].shape[0],
        zero_shot_temperature=math.exp(-read_number(scale_file, scale)),
        **_pixel_settings(folder),
    )


def clip_checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that decides what numbers come out, by name."""
    return checksums(folder, _SIDE_FILES)


def require_clip(folder: Path) -> None:
    """Makes sure that all that `load_clip` needs is there, beyond what `clip_config` reads.

    Raises:
        ModelError: transformers is not installed.
        WeightsNotFoundError: there is no tokeniser.
    """
    require_package("transformers", "backbones", "a CLIP or SigLIP model")
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise WeightsNotFoundError(f"{folder} lacks a tokeniser: one of {', '.join(_TOKENIZER_FILES)}; copy it again")


def _entry(tensors: Mapping[str, tuple[Path, TensorEntry]], name: str, folder: Path) -> tuple[Path, TensorEntry]:
    if name not in tensors:
        raise WeightsDamagedError(
            f"{folder} holds no CLIP or SigLIP model with both towers: the weight {name!r} is missing"
        )
    return tensors[name]


def _sizes(folder: Path, kind: str, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """(side of a patch, side of a frame) in pixels."""
    try:
        patches, num_positions = shapes[_PATCHES], shapes[f"vision_model.{_POSITIONS}"][0]
        if kind == "siglip2":  # patches come in as rows of 3 * side * side numbers, in any arrangement
            patch = math.isqrt(patches[1] // 3)
            num_positions = int(_pixel_values(folder).get("max_num_patches", num_positions))
        else:
            patch = patches[-1]
            num_positions -= kind == "clip"  # its class token has a position too
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise WeightsDamagedError(f"{folder} holds no image tower of a {kind} model: {error!r}") from error
    return patch, math.isqrt(num_positions) * patch


def _pixel_settings(folder: Path) -> dict[str, Any]:
    values = _pixel_values(folder)
    try:
        scale = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
        if not values.get("do_normalize", True):
            return {"pixel_scale": scale, "pixel_mean": (0.0,) * 3, "pixel_std": (1.0,) * 3}
        mean, std = (tuple(float(number) for number in values[name]) for name in ("image_mean", "image_std"))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsDamagedError(f"{folder}: the settings of its image processor lack {error!r}") from error
    if len(mean) != 3 or len(std) != 3 or not all(std):
        raise WeightsDamagedError(f"{folder}: image_mean and image_std must be 3 numbers each, got {mean} and {std}")
    return {"pixel_scale": scale, "pixel_mean": mean, "pixel_std": std}


def _pixel_values(folder: Path) -> Mapping[str, Any]:
    for name in _PIXEL_FILES:
        if (folder / name).is_file():
            values: Any = read_json(folder / name)
            return values.get("image_processor", values)
    raise WeightsNotFoundError(f"{folder} must hold {_PIXEL_FILES[0]!r}, which says how pixels go in; copy it again")
