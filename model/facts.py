"""What can be known of a model by its name without loading it: settings, fingerprint, whether its files are there.

Needs no weights for the presets, and no torch. `model.weights` says which names there are.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from model.checkpoint import read_header
from model.clip_files import CLIP_FAMILIES, ClipConfig, clip_checksums, clip_config, require_clip
from model.config import VideoBertConfig, fingerprint, preset
from model.errors import ModelError, WeightsDamagedError
from model.hub import find_folder
from model.pretrained import base_checksums, require_backbones
from model.pretrained_files import WEIGHTS_DIR_VARIABLE, WEIGHTS_FILES, file_sha256, verified_path
from model.safetensors_file import SUFFIX, tensors_sha256
from model.timm_files import TIMM, timm_config

_ALIKE = ("mini", "mini-int8")


class ModelFacts(NamedTuple):
    """What an index needs to know of a model before any worker has loaded it. Fields as those of `VideoBert`."""

    fingerprint: str
    embedding_dim: int
    feature_shape: tuple[int, int]
    frame_size_px: int


def model_facts(name: str = "mini") -> ModelFacts:
    """The facts of a model, without loading it.

    Raises:
        UnknownModelError: there is no such preset.
        WeightsNotFoundError, WeightsDamagedError: the name says where the model lies, and there is no usable one.
    """
    config = model_config(name)
    return ModelFacts(model_fingerprint(name), config.embedding_dim, config.feature_shape, config.frame_size_px)


def model_fingerprint(name: str = "mini") -> str:
    """What `load_model(name).fingerprint` will be, from the settings and the checksums of the weights.

    Raises:
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `model_facts`.
    """
    return fingerprint(model_config(name), checksums_of(name))


def frames_fingerprint(name: str = "mini") -> str:
    """Name of what a model's `encode_frames` computes: models with the same one can share stored frame features.

    Raises:
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `model_facts`.
    """
    if split_name(name)[0] in CLIP_FAMILIES:
        return model_fingerprint(name)
    config, path, files = videobert_config(name), checkpoint_path(name), checksums_of(name)
    kind = config.frames.backbone.partition(":")[0]  # where a backbone of timm lies does not count
    facts = {
        "config": {**asdict(config.frames), "backbone": kind},
        "quantized": "frames" in config.quantized,
        "pretrained": files.get("frames") or {role: sha for role, sha in files.items() if role.startswith("frames/")},
        "trained": tensors_sha256(path, "frame_encoder.") if path and not config.comes_ready else {},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def frames_alike(one: str, other: str) -> bool:
    """Whether what was learnt on frame features of one fingerprint holds for those of the other.

    Those of `mini` and `mini-int8`, and of what was trained on either, have a cosine of 0.998: see
    docs/design/compression.md.
    """
    return one == other or {one, other} == {frames_fingerprint(name) for name in _ALIKE}


def model_config(name: str) -> VideoBertConfig | ClipConfig:
    """The settings of a model, without loading it.

    Raises:
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `model_facts`.
    """
    kind, reference = split_name(name)
    return clip_config(find_folder(reference, kind), kind) if kind in CLIP_FAMILIES else videobert_config(name)


def videobert_config(name: str) -> VideoBertConfig:
    """As `model_config`, for models with a fusion tower: those that can be trained here.

    Raises:
        ModelError: it is a CLIP or SigLIP model, which has none.
        UnknownModelError, WeightsNotFoundError, WeightsDamagedError: as `model_facts`.
    """
    kind, reference = split_name(name)
    if kind in CLIP_FAMILIES:
        raise ModelError(f"the model must have a fusion tower, which {name!r} has not: name a preset or timm:...")
    if kind == TIMM:
        return timm_config(reference)
    return read_header(_checkpoint_file(name)).config if name.endswith(SUFFIX) else preset(name)


def canonical_name(name: str) -> str:
    """The name with a path in it made absolute, so that it means the same from everywhere; others as they are."""
    kind, reference = split_name(name)
    if kind and Path(reference).expanduser().is_dir():
        return f"{kind}:{Path(reference).expanduser().absolute()}"
    return str(Path(name).absolute()) if not kind and name.endswith(SUFFIX) else name


def require_weights(name: str = "mini") -> None:
    """Makes sure that every file of a model is there and whole, before work starts that needs it.

    Raises:
        UnknownModelError, ModelError, WeightsNotFoundError, WeightsDamagedError: as `load_model`.
    """
    kind, reference = split_name(name)
    if kind in CLIP_FAMILIES:
        folder = find_folder(reference, kind)
        clip_config(folder, kind)
        require_clip(folder)
        return
    config = videobert_config(name)
    require_backbones(config)
    require_text_space(name, config)
    checkpoint_path(name)


def split_name(name: str) -> tuple[str, str]:
    """("clip", "ID_OR_FOLDER") and the like; ("", name) of presets and checkpoints."""
    kind, _, reference = name.partition(":")
    return (kind, reference) if kind in (*CLIP_FAMILIES, TIMM) else ("", name)


def checksums_of(name: str) -> dict[str, str]:
    """Of every file under the model, by role."""
    kind, reference = split_name(name)
    if kind in CLIP_FAMILIES:
        return clip_checksums(find_folder(reference, kind))
    if kind == TIMM:
        return base_checksums(videobert_config(name))
    if name.endswith(SUFFIX):
        file = _checkpoint_file(name)
        return {**read_header(file).base, "checkpoint": file_sha256(file)}
    return {role: file.sha256 for role, file in WEIGHTS_FILES[name].items()}


def checkpoint_path(name: str) -> Path | None:
    """The checkpoint of a model that has one, checked.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`; or it was trained on other pretrained weights.
    """
    if split_name(name)[0]:
        return None
    if not name.endswith(SUFFIX):
        file = WEIGHTS_FILES[name].get("checkpoint")
        return None if file is None else verified_path(file)
    path = _checkpoint_file(name)
    config, base, _ = read_header(path)
    known = base_checksums(config)
    if base != known:
        raise WeightsDamagedError(f"{path} was trained on other pretrained weights: they must be {known}, got {base}")
    return path


def _checkpoint_file(name: str) -> Path:
    """The path that the name is, or, where it has moved, its namesake in the folder of VIDEOBERT_WEIGHTS_DIR."""
    path, folder = Path(name), os.environ.get(WEIGHTS_DIR_VARIABLE)
    moved = Path(folder, path.name) if folder else path
    return moved if not path.is_file() and moved.is_file() else path


def require_text_space(name: str, config: VideoBertConfig) -> None:
    """Refuses a backbone that nothing relates to text yet: no classifier whose classes have names, nothing trained."""
    kind, _ = split_name(name)
    if kind == TIMM and not config.frames.num_classes:
        raise ModelError(
            f"{name!r} has no classifier of the 1,000 ImageNet classes, so nothing relates its features to text: train "
            f"a projection with `videobert train DATA --model {name}`, then use the checkpoint that it writes"
        )
