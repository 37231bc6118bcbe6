"""Pretrained backbones under a fresh fusion tower, put together from their files: where every `VideoBert` begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.config import INT8_BACKBONE, TextEncoderConfig, VideoBertConfig, tiny_test
from model.hub import weights_files
from model.pretrained_files import (
    BASE_FILES,
    FRAMES,
    INT8_FRAME_FILES,
    LABELS,
    TEXT,
    TOKENIZER,
    WeightsFile,
    verified_path,
)
from model.timm_files import TIMM, find_timm, require_timm, timm_checksums

# By the role of a pretrained file: the part of the model for which it is read.
_WHOLE_PARTS = {"text": "text_encoder", "frames": "frame_encoder"}
_one_at_a_time = threading.Lock()

if TYPE_CHECKING:
    from model.frame_encoder import FrameEncoder
    from model.labels import Labels
    from model.text_encoder import TextEncoder
    from model.videobert import VideoBert


def base_checksums(config: VideoBertConfig) -> dict[str, str]:
    """SHA-256 of the pretrained files under a model with these settings, by role.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: a backbone of timm cannot be found.
    """
    kind, _, reference = config.frames.backbone.partition(":")
    if kind == "tiny":
        return {}
    files = {role: file.sha256 for role, file in _files_read(config).items() if role != "frames" or kind != TIMM}
    return files if kind != TIMM else {**files, **timm_checksums(find_timm(reference))}


def require_backbones(config: VideoBertConfig) -> None:
    """Makes sure that every pretrained file under a model with these settings is there and whole.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`.
        ModelError: a package that the backbone needs is not installed.
    """
    kind, _, reference = config.frames.backbone.partition(":")
    if kind == "tiny":
        return
    for role, file in _files_read(config).items():
        if role != "frames" or kind != TIMM:
            verified_path(file)
    if kind == TIMM:
        require_timm()
        find_timm(reference)


def _files_read(config: VideoBertConfig) -> dict[str, WeightsFile]:
    """Those that the checkpoint does not make needless."""
    needless = {role for role, part in _WHOLE_PARTS.items() if config.brings_whole(part)}
    if config.frames.backbone != INT8_BACKBONE:
        return {role: file for role, file in BASE_FILES.items() if role not in needless}
    return {role: file for role, file in BASE_FILES.items() if role not in {*needless, "frames"}} | {**INT8_FRAME_FILES}


def pretrained_paths(config: VideoBertConfig) -> list[Path]:
    """Every pretrained file that is read for a model with these settings.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`.
    """
    kind, _, reference = config.frames.backbone.partition(":")
    if kind == "tiny":
        return []
    files = [verified_path(file) for role, file in _files_read(config).items() if role != "frames" or kind != TIMM]
    return [*files, *weights_files(find_timm(reference))] if kind == TIMM else files


def pretrained_model(config: VideoBertConfig, checksums: Mapping[str, str]) -> VideoBert:
    """Pretrained backbones under a fresh tower, on the CPU in evaluation mode: where training starts.

    What a checkpoint brings whole is not read from elsewhere, and has no meaningful weights before that checkpoint.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: as `verified_path`.
    """
    from model.videobert import VideoBert

    text_encoder = pretrained_text_encoder(config)
    frame_encoder = _load_frame_encoder(config)
    labels = _load_labels(config, text_encoder)
    with _own_random_numbers():
        return VideoBert(config, text_encoder, frame_encoder, labels, checksums).eval()


def pretrained_text_encoder(config: VideoBertConfig) -> TextEncoder:
    """On the CPU; the adapter, if there is one, is fresh."""
    return _text_encoder(config.text, is_empty=config.brings_whole("text_encoder"))


def _text_encoder(config: TextEncoderConfig, *, is_empty: bool) -> TextEncoder:
    from model.text_encoder import TextEncoder, load_bert_weights
    from model.tokenizer import HashTokenizer, WordPieceTokenizer

    if config.tokenizer == "hash":
        with _own_random_numbers():
            encoder = TextEncoder(config, HashTokenizer(config.vocab_size, config.max_tokens))
            return _with_fresh_adapter(encoder)
    from safetensors.torch import load_file

    tokenizer_path = verified_path(TOKENIZER)
    weights_path = None if is_empty else verified_path(TEXT)
    with _no_random_weights():
        encoder = TextEncoder(config, WordPieceTokenizer(tokenizer_path, config.max_tokens))
    if weights_path is not None:
        load_bert_weights(encoder, load_file(weights_path))
    return _with_fresh_adapter(encoder)


def _with_fresh_adapter(encoder: TextEncoder) -> TextEncoder:
    if encoder.adapter is not None:
        encoder.adapter.initialise()
    return encoder


def _load_frame_encoder(config: VideoBertConfig) -> FrameEncoder:
    import torch

    from model.frame_encoder import EfficientNetLite0, TinyFrameEncoder, load_efficientnet_weights
    from model.int8 import add_input_ranges
    from model.int8_calibration import load_calibration, load_tuned_layers

    if config.frames.backbone == "tiny":
        with _own_random_numbers():
            tiny = TinyFrameEncoder(config.frames)
        tiny.solve_classifier()
        return tiny
    kind, _, reference = config.frames.backbone.partition(":")
    if kind == TIMM:
        from model.timm_encoder import load_timm_encoder

        return load_timm_encoder(config.frames, find_timm(reference))
    is_empty = config.brings_whole("frame_encoder")
    path = None if is_empty else verified_path(FRAMES)
    with _no_random_weights():
        encoder = EfficientNetLite0(config.frames)
    if "frames" in config.quantized:
        add_input_ranges(encoder)
    if path is None:
        return encoder
    load_efficientnet_weights(encoder, torch.load(path, map_location="cpu", weights_only=True))
    if kind == INT8_BACKBONE:
        tuned, calibration = (verified_path(INT8_FRAME_FILES[role]) for role in ("frames/tuned", "frames/calibration"))
        load_tuned_layers(encoder, tuned)
        load_calibration(encoder, calibration)
    return encoder


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Fresh weights are the same in every run, and leave the caller's random numbers as they were.

    PyTorch draws them from one state for the whole process, so threads that load models do it one after the other.
    """
    import torch

    with _one_at_a_time, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        yield


def _no_random_weights() -> AbstractContextManager[object]:
    """Modules made inside are left uninitialised, to be filled from a file.

    PyTorch's own way, the "meta" device, loads its compiler at the first random number: more than a second.
    """
    from torch.overrides import TorchFunctionMode

    class SkipInitialisation(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if getattr(func, "__module__", None) == "torch.nn.init":
                return (kwargs or {}).get("tensor", args[0] if args else None)
            return func(*args, **(kwargs or {}))

    return SkipInitialisation()


def _load_labels(config: VideoBertConfig, text_encoder: TextEncoder) -> Labels:
    from model.labels import Labels, colour_labels, imagenet_labels

    if config.frames.backbone == "tiny":
        is_empty = config.brings_whole("text_encoder")
        return colour_labels(pretrained_text_encoder(tiny_test()) if is_empty else text_encoder)
    labels = imagenet_labels(verified_path(LABELS))
    return labels if config.frames.num_classes else Labels([], labels.embeddings[:0])
