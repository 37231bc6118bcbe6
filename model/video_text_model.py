"""What the index needs of a model, whatever it is built from: `VideoBert`, or `ClipModel`.

Shapes: N frames, S = side of a frame in pixels, K tokens per frame, D numbers per token, B videos (or segments),
T frames of the longest, C classes, L labels, E = `embedding_dim`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from model.inputs import Array


class TextModel(Protocol):
    """The text side alone, all that a query needs."""

    def encode(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors: float32 [N, E] of length 1."""
        ...


class ModelSettings(Protocol):
    """What can be known of a model from its settings: no weights, no torch.

    Attributes:
        zero_shot_prompt: sentence into which a label is put, with one `{label}`.
        zero_shot_temperature: cosines are divided by this before the softmax.
    """

    @property
    def name(self) -> str: ...
    @property
    def embedding_dim(self) -> int: ...
    @property
    def feature_shape(self) -> tuple[int, int]: ...
    @property
    def frame_size_px(self) -> int: ...
    @property
    def zero_shot_prompt(self) -> str: ...
    @property
    def zero_shot_temperature(self) -> float: ...
    def to_dict(self) -> dict[str, Any]: ...


class VideoTextModel(Protocol):
    """Frames, texts and videos to vectors of one space. `VideoBert`'s docstrings say it in full.

    Attributes:
        embedding_dim: E.
        feature_shape: (K, D).
        frame_size_px: S.
        label_names: the C class names, in the order of `classify`.
    """

    embedding_dim: int
    feature_shape: tuple[int, int]
    frame_size_px: int
    label_names: list[str]

    @property
    def text_encoder(self) -> TextModel:
        """The text side alone."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hash of the settings and of the checksums of the weights: equal where vectors may be compared."""
        ...

    def encode_frames(self, frames: Array) -> Tensor:
        """Frames uint8 [N, S, S, 3] in RGB -> features float32 [N, K, D]; they bear storing as float16."""
        ...

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors: float32 [N, E] of length 1."""
        ...

    def encode_video(
        self, features: Array, frame_mask: Array, frame_times_s: Array, texts: Sequence[str | None] | None = None
    ) -> Tensor:
        """Features [B, T, K, D], bool [B, T], seconds [B, T] and B texts or None -> float32 [B, E] of length 1."""
        ...

    def classify(self, features: Array, frame_mask: Array) -> Tensor:
        """Features [B, T, K, D] and bool [B, T] -> probabilities of the classes, float32 [B, C]."""
        ...

    def encode_and_classify(
        self, features: Array, frame_mask: Array, frame_times_s: Array, texts: Sequence[str | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `encode_video` and `classify` give, perhaps for less than both take."""
        ...

    def zero_shot(self, video_embeddings: Array, labels: Sequence[str]) -> Tensor:
        """Vectors [B, E] and L labels -> the share of each label, float32 [B, L]."""
        ...
