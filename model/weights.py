"""Load a model by its name, which is one of

    mini                      a preset; `model.config` lists them
    my-model.safetensors      a checkpoint of one's own
    clip:ID_OR_FOLDER         a CLIP model of Hugging Face's hub, or a folder in its layout; likewise siglip:, siglip2:
    timm:NAME_OR_FOLDER       a CNN or ViT of timm under a fresh fusion tower

Only the last two ever ask the hub, and only for what is not on this machine. Every file's SHA-256 counts: those of the
presets are checked before they are read, those of folders are part of the fingerprint, which an index remembers.
`model.facts` says what can be known of a model without loading it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from model.checkpoint import load_checkpoint
from model.clip_files import CLIP_FAMILIES, clip_checksums, clip_config, require_clip
from model.errors import ModelError
from model.facts import (
    ModelFacts,
    canonical_name,
    checkpoint_path,
    checksums_of,
    frames_alike,
    frames_fingerprint,
    model_config,
    model_facts,
    model_fingerprint,
    require_text_space,
    require_weights,
    split_name,
    videobert_config,
)
from model.hub import find_folder
from model.pretrained import base_checksums, pretrained_model, pretrained_text_encoder
from model.pretrained_files import BASE_FILES, WEIGHTS_DIR_VARIABLE, WEIGHTS_FILES, WeightsFile, verified_path

if TYPE_CHECKING:
    import torch

    from model.clip import ClipModel
    from model.video_text_model import TextModel, VideoTextModel
    from model.videobert import VideoBert

__all__ = [
    "BASE_FILES",
    "WEIGHTS_DIR_VARIABLE",
    "WEIGHTS_FILES",
    "ModelFacts",
    "WeightsFile",
    "base_checksums",
    "canonical_name",
    "frames_alike",
    "frames_fingerprint",
    "load_model",
    "load_text_encoder",
    "load_videobert",
    "model_config",
    "model_facts",
    "model_fingerprint",
    "pretrained_model",
    "require_weights",
    "verified_path",
    "videobert_config",
]


def load_model(
    name: str = "mini",
    device: str = "cpu",
    runtime: str = "auto",
    num_threads: int | None = None,
    for_training: bool = False,
) -> VideoTextModel:
    """Load a model, ready to use, in evaluation mode.

    Args:
        name: "mini"; "mini-int8", its frame encoder in 8-bit integers; "mini-zero", the same backbones without any
            training; "tiny_test" (random weights, for tests); or another form of name, see above.
        device: as PyTorch names it, e.g. "cpu" or "cuda:1"; "auto" is a GPU where there is one.
        runtime: what runs the frame encoder: "torch", "openvino", "compiled" (by PyTorch, on a GPU), or "auto" for the
            faster one that works here without a long start.
        num_threads: CPU threads to use, for PyTorch in this whole process; None leaves PyTorch as it is and gives
            OpenVINO every core.
        for_training: also a backbone of timm that nothing relates to text before training has done so.

    Raises:
        UnknownModelError: there is no such preset.
        ModelError: `num_threads` is below 1; a package is missing; or, last, the runtime is unknown or cannot be used.
        WeightsNotFoundError, WeightsDamagedError: as `verified_path` and `find_folder`.
    """
    kind, _ = split_name(name)
    if kind in CLIP_FAMILIES:
        return _load_clip(name, device, runtime, num_threads)
    return load_videobert(name, device, runtime, num_threads, for_training)


def load_videobert(
    name: str = "mini",
    device: str = "cpu",
    runtime: str = "auto",
    num_threads: int | None = None,
    for_training: bool = False,
) -> VideoBert:
    """As `load_model`, for models with a fusion tower.

    Raises:
        ModelError: as `load_model`; or it is a CLIP or SigLIP model, which has none.
    """
    from model.int8 import compute_in_int8
    from model.runtime import make_runtime

    config = videobert_config(name)
    if not for_training:
        require_text_space(name, config)
    elif config.quantized:
        raise ModelError(
            f"8-bit integers cannot be trained: train the model that {name!r} was made from, then quantise"
        )
    place = _prepare(device, num_threads)
    model = pretrained_model(config, checksums_of(name))
    if (checkpoint := checkpoint_path(name)) is not None:
        load_checkpoint(model, config, checkpoint)
    for part, stack in (("text", model.text_encoder.stack), ("fusion", model.fusion.stack)):
        if part in config.quantized:
            compute_in_int8(stack)
    model.to(place)
    model.runtime = make_runtime(model.frame_encoder, runtime, place, num_threads)
    return model


def _load_clip(name: str, device: str, runtime: str, num_threads: int | None) -> ClipModel:
    from model.clip import load_clip

    kind, reference = split_name(name)
    if runtime not in ("auto", "torch"):
        raise ModelError(f"the runtime of a CLIP or SigLIP model must be auto or torch, got {runtime!r}")
    folder = find_folder(reference, kind)
    require_clip(folder)
    place = _prepare(device, num_threads)
    # Half the memory and several times the speed; features are stored with fewer digits than this costs.
    autocast = place.type == "cuda"
    return load_clip(clip_config(folder, kind), folder, clip_checksums(folder), autocast).to(place)


def load_text_encoder(name: str = "mini", device: str = "cpu") -> TextModel:
    """Load only the text side of a model: its `encode` is `VideoBert.encode_text`. Arguments as `load_model`.

    Raises:
        UnknownModelError, ModelError, WeightsNotFoundError, WeightsDamagedError: as `load_model`.
    """
    kind, reference = split_name(name)
    if kind in CLIP_FAMILIES:
        from model.clip_text import load_clip_text

        folder = find_folder(reference, kind)
        require_clip(folder)
        return load_clip_text(clip_config(folder, kind), folder).to(_device(device))
    config = videobert_config(name)
    encoder = pretrained_text_encoder(config)
    if (checkpoint := checkpoint_path(name)) is not None:
        load_checkpoint(encoder, config, checkpoint, prefix="text_encoder.")
    if "text" in config.quantized:
        from model.int8 import compute_in_int8

        compute_in_int8(encoder.stack)
    return encoder.to(_device(device)).eval()


def _prepare(device: str, num_threads: int | None) -> torch.device:
    import torch

    if num_threads is not None:
        if num_threads < 1:
            raise ModelError(f"num_threads must be at least 1, got {num_threads!r}")
        torch.set_num_threads(num_threads)
    return _device(device)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
