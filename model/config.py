"""What a model is built from: frozen settings and the presets that name them. Imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from model.errors import ModelError, UnknownModelError
from model.video_text_model import ModelSettings

# Raised when the same weights and settings start to give other numbers, so that old indexes are not mixed with new.
ALGORITHM_VERSION = 1
PARTS = ("frames", "fusion", "text")  # of a model, as people name them
INT8_BACKBONE = "efficientnet_lite0_int8"


def _require(holds: bool, text: str) -> None:
    if not holds:
        raise ModelError(text)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A stack of self-attention blocks.

    Attributes:
        num_layers: blocks in the stack.
        width: numbers per token; a multiple of `num_heads`.
        num_heads: attention heads.
        ffn_width: inner width of the feed-forward layers.
        pre_norm: LayerNorm before each sub-layer (GPT-2) and once at the end, or after each (BERT).
        layer_norm_eps: added to the variance.
        dropout: probability in training, 0 up to 1.
    """

    num_layers: int
    width: int
    num_heads: int
    ffn_width: int
    pre_norm: bool = False
    layer_norm_eps: float = 1e-12
    dropout: float = 0.0

    def __post_init__(self) -> None:
        _require(self.num_layers >= 1, f"num_layers must be at least 1, got {self.num_layers!r}")
        _require(
            self.num_heads >= 1 and self.width % self.num_heads == 0,
            f"width must be a multiple of num_heads, got {self.width!r} and {self.num_heads!r}",
        )
        _require(0 <= self.dropout < 1, f"dropout must be at least 0 and below 1, got {self.dropout!r}")


@dataclass(frozen=True, kw_only=True)
class TextEncoderConfig:
    """A BERT encoder and its tokeniser.

    Attributes:
        transformer: the stack.
        vocab_size: token ids are 0 to `vocab_size - 1`.
        num_positions: rows of the position table; no input is longer.
        max_tokens: longer inputs are cut, `[CLS]` and `[SEP]` included.
        tokenizer: "wordpiece" (BERT's, read from tokenizer.json) or "hash" (words hashed to ids, needs no file).
        adapter_width: inner width of the adapter of sentence embeddings to the joint space; 0: there is none.
    """

    transformer: TransformerConfig
    vocab_size: int
    num_positions: int
    max_tokens: int
    tokenizer: str
    adapter_width: int = 0

    def __post_init__(self) -> None:
        _require(
            3 <= self.max_tokens <= self.num_positions,
            f"max_tokens must be between 3 and num_positions ({self.num_positions}), got {self.max_tokens!r}",
        )
        _require(
            self.tokenizer in ("wordpiece", "hash"), f"tokenizer must be wordpiece or hash, got {self.tokenizer!r}"
        )


@dataclass(frozen=True, kw_only=True)
class FrameEncoderConfig:
    """A CNN over single frames.

    Attributes:
        backbone: "efficientnet_lite0"; "efficientnet_lite0_int8", which has the layers that `mini` tuned and computes
            in 8-bit integers; "tiny"; or "timm:" and the folder or hub id of a model of timm.
        frame_size_px: frames come in as squares of this side.
        num_tokens: tokens per frame (1: the globally pooled vector).
        feature_dim: numbers per token.
        num_classes: classes of the classifier that came with the weights.
    """

    backbone: str
    frame_size_px: int
    num_tokens: int
    feature_dim: int
    num_classes: int


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """The cross-modal Transformer over `[CLS] text [>] video [SEP]`.

    Attributes:
        transformer: the stack; its width is that of the tower.
        frame_head_width: inner width of the MLP on the mean frame, beside the stack; 0: there is none.
        agreement_midpoint: with a frame head, the cosine of video and text at which the text counts half.
        agreement_width: how far above the midpoint that cosine has to be for the text to count 73 %.
        agreement_weight: how much a text that fits in full counts beside the frames.
        max_period_s: longest wavelength of the time embeddings, seconds.
        init_seed: seed of the fresh weights, so that every machine starts from the same ones.
    """

    transformer: TransformerConfig
    frame_head_width: int = 0
    agreement_midpoint: float = 0.43
    agreement_width: float = 0.04
    agreement_weight: float = 1.0
    max_period_s: float = 10_000.0
    init_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class VideoBertConfig:
    """Everything that decides what numbers come out, but for the weights themselves.

    Attributes:
        name: the preset, e.g. "mini".
        embedding_dim: length of the vectors of the joint space; the width of the text encoder.
        text, frames, fusion: the three parts.
        conse_temperature: class logits are divided by this before they weigh the label embeddings; see `model.conse`.
        zero_shot_prompt: sentence into which a label is put, with one `{label}`.
        zero_shot_temperature: cosines are divided by this before the softmax.
        trained: what the names of the weights begin with that a checkpoint brings; none for a model without one.
        quantized: of "frames", "fusion" and "text", the parts whose weights are 8-bit integers; see `model.int8`.
    """

    name: str
    embedding_dim: int
    text: TextEncoderConfig
    frames: FrameEncoderConfig
    fusion: FusionConfig
    conse_temperature: float = 2.5
    zero_shot_prompt: str = "{label}"
    zero_shot_temperature: float = 0.1
    trained: tuple[str, ...] = ()
    quantized: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(
            self.embedding_dim == self.text.transformer.width,
            f"embedding_dim must be the text encoder's width {self.text.transformer.width}, got {self.embedding_dim!r}",
        )
        _require(self.conse_temperature > 0, f"conse_temperature must be above 0, got {self.conse_temperature!r}")
        _require("{label}" in self.zero_shot_prompt, f"zero_shot_prompt needs {{label}}, got {self.zero_shot_prompt!r}")
        _require(
            self.zero_shot_temperature > 0, f"zero_shot_temperature must be above 0, got {self.zero_shot_temperature!r}"
        )
        _require(set(self.quantized) <= set(PARTS), f"quantized must be of {', '.join(PARTS)}, got {self.quantized!r}")

    @property
    def feature_shape(self) -> tuple[int, int]:
        """(tokens per frame, numbers per token) of the frame features."""
        return (self.frames.num_tokens, self.frames.feature_dim)

    @property
    def frame_size_px(self) -> int:
        return self.frames.frame_size_px

    @property
    def has_int8_frames(self) -> bool:
        """Whether the frame encoder computes in 8-bit integers."""
        return "frames" in self.quantized or self.frames.backbone == INT8_BACKBONE

    @property
    def comes_ready(self) -> tuple[str, ...]:
        """What the names of weights begin with that no checkpoint brings, as they are complete without one."""
        return ("frame_encoder.",) if self.frames.backbone == INT8_BACKBONE else ()

    def brings_whole(self, part: str) -> bool:
        """Whether a checkpoint brings all of "frame_encoder" or "text_encoder", so that no other file of it is read."""
        return f"{part}." in self.trained

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as JSON can hold."""
        values = asdict(self)
        if not self.quantized:  # so that models without it keep their fingerprint
            del values["quantized"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VideoBertConfig:
        """The inverse of `to_dict`, also after a round trip through JSON.

        Raises:
            ModelError: a value breaks a rule.
            TypeError, KeyError: a setting is unknown or missing.
        """
        parts: dict[str, Any] = dict(values)
        text, fusion = parts["text"], parts["fusion"]
        parts["text"] = TextEncoderConfig(**text | {"transformer": TransformerConfig(**text["transformer"])})
        parts["fusion"] = FusionConfig(**fusion | {"transformer": TransformerConfig(**fusion["transformer"])})
        parts["frames"] = FrameEncoderConfig(**parts["frames"])
        parts["trained"] = tuple(parts["trained"])
        parts["quantized"] = tuple(parts.get("quantized", ()))
        return cls(**parts)


def fingerprint(config: ModelSettings, checksums: Mapping[str, str]) -> str:
    """Name of what a model computes: 32 hex digits, the same on every machine.

    Args:
        config: the settings. Where the files of a backbone lie does not count: a folder may move.
        checksums: SHA-256 of each weights file in use, by its role.
    """
    settings = config.to_dict()
    if "frames" in settings:
        settings["frames"]["backbone"] = settings["frames"]["backbone"].partition(":")[0]
    facts = {"algorithm": ALGORITHM_VERSION, "config": settings, "weights": dict(checksums)}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def mini_zero() -> VideoBertConfig:
    """EfficientNet-Lite0 and all-MiniLM-L6-v2 under a fusion tower that has learnt nothing: the anchor alone, 384-d."""
    return VideoBertConfig(
        name="mini-zero",
        embedding_dim=384,
        text=TextEncoderConfig(
            transformer=TransformerConfig(num_layers=6, width=384, num_heads=12, ffn_width=1536),
            vocab_size=30_522,
            num_positions=512,
            max_tokens=256,
            tokenizer="wordpiece",
        ),
        frames=FrameEncoderConfig(
            backbone="efficientnet_lite0", frame_size_px=224, num_tokens=1, feature_dim=1280, num_classes=1000
        ),
        fusion=FusionConfig(
            transformer=TransformerConfig(
                num_layers=2, width=512, num_heads=8, ffn_width=2048, pre_norm=True, layer_norm_eps=1e-5, dropout=0.1
            )
        ),
        zero_shot_prompt="a photo of a {label}",
    )


def mini() -> VideoBertConfig:
    """As `mini_zero`, trained on photographs with captions: last layers, a frame head, an adapter on the text side.

    The stack of the tower is smaller, and fresh: it says nothing until something like `videobert pretrain` trains it.
    """
    zero = mini_zero()
    tower = replace(zero.fusion.transformer, width=384, num_heads=6, ffn_width=768)
    last_layers = tuple(f"frame_encoder.blocks.{number}." for number in (13, 14, 15))
    return replace(
        zero,
        name="mini",
        text=replace(zero.text, adapter_width=1536),
        fusion=replace(
            zero.fusion,
            transformer=tower,
            frame_head_width=1536,
            agreement_midpoint=0.37,
            agreement_width=0.05,
            agreement_weight=0.65,
        ),
        trained=("fusion.frame_head.", "gate", "text_encoder.adapter.", *last_layers, "frame_encoder.head."),
    )


def mini_int8() -> VideoBertConfig:
    """As `mini`, but the frame encoder computes in 8-bit integers: faster where the processor can, see `int8_gain`."""
    base = mini()
    return replace(
        base,
        name="mini-int8",
        frames=replace(base.frames, backbone=INT8_BACKBONE),
        trained=tuple(part for part in base.trained if not part.startswith("frame_encoder.")),
    )


def tiny_test() -> VideoBertConfig:
    """Small random weights from a fixed seed, for tests: no downloads, loads in milliseconds, knows eight colours."""
    return VideoBertConfig(
        name="tiny_test",
        embedding_dim=32,
        text=TextEncoderConfig(
            transformer=TransformerConfig(num_layers=1, width=32, num_heads=2, ffn_width=64),
            vocab_size=4096,
            num_positions=64,
            max_tokens=64,
            tokenizer="hash",
        ),
        frames=FrameEncoderConfig(backbone="tiny", frame_size_px=32, num_tokens=1, feature_dim=32, num_classes=8),
        fusion=FusionConfig(
            transformer=TransformerConfig(
                num_layers=1, width=32, num_heads=2, ffn_width=64, pre_norm=True, layer_norm_eps=1e-5
            )
        ),
    )


# What else a model may be called; `model.weights` takes them apart.
OTHER_FORMS = ("CHECKPOINT.safetensors", "clip:ID_OR_FOLDER", "siglip:...", "siglip2:...", "timm:...")
PRESETS: dict[str, Callable[[], VideoBertConfig]] = {
    "mini": mini,
    "mini-int8": mini_int8,
    "mini-zero": mini_zero,
    "tiny_test": tiny_test,
}


def preset(name: str) -> VideoBertConfig:
    """The preset of that name.

    Raises:
        UnknownModelError: there is none; the text lists those there are.
    """
    if name not in PRESETS:
        raise UnknownModelError(f"the model must be one of {', '.join([*PRESETS, *OTHER_FORMS])}, got {name!r}")
    return PRESETS[name]()
