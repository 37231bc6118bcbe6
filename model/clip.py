"""CLIP, SigLIP and SigLIP 2 as they were released: two towers and no fusion Transformer, nothing to train here.

Shapes: N frames or texts, S = side of a frame in pixels, P = side of a patch, B videos, T frames of the longest,
C classes, E = `embedding_dim`.

Source: Radford et al., "CLIP", 2021; Zhai et al., "SigLIP", 2023; Tschannen et al., "SigLIP 2", 2025. A video is the
mean of its frames: Luo et al., "CLIP4Clip", 2021, section 3.3.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.clip_files import ClipConfig
from model.clip_text import ClipText, pooled, read_clip
from model.config import fingerprint
from model.conse import mean_over_frames
from model.errors import InputError
from model.inputs import Array, check_embeddings, check_features, check_frames, check_videos
from model.labels import imagenet_classes
from model.text_cache import cached_embeddings

_FRAMES_PER_BATCH = 32


class ClipModel(nn.Module):
    """A CLIP or SigLIP model with the surface of `VideoTextModel`. Make one with `model.load_model`.

    A frame's features are its image embedding before it is scaled to length 1.

    Attributes:
        config: the settings.
        embedding_dim, feature_shape, frame_size_px, label_names: see `VideoTextModel`.
        text_encoder: the text tower.
        autocast: run the image tower in bfloat16.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, config: ClipConfig, text_encoder: ClipText, checksums: Mapping[str, str], autocast: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = config.embedding_dim
        self.feature_shape = config.feature_shape
        self.frame_size_px = config.frame_size_px
        self.label_names = [name for name, _ in imagenet_classes()]
        self.text_encoder = text_encoder
        self.network = text_encoder.network
        self.autocast = autocast
        self.register_buffer("mean", torch.tensor(config.pixel_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.pixel_std)[:, None, None], persistent=False)
        self._checksums = dict(checksums)

    @property
    def fingerprint(self) -> str:
        """See `VideoTextModel.fingerprint`."""
        return fingerprint(self.config, self._checksums)

    @property
    def device(self) -> torch.device:
        return self.mean.device

    def pixel_values(self, frames: Tensor) -> Tensor:
        """Frames uint8 [N, S, S, 3] -> float32 [N, 3, S, S], scaled and normalised as the image processor asks.

        Its resizing is left out: frames come squeezed to S x S, so that nothing at the edges of a wide frame is lost,
        where CLIP's processor would crop.
        """
        return (frames.permute(0, 3, 1, 2).float() * self.config.pixel_scale - self.mean) / self.std

    def encode_frames(self, frames: Array) -> Tensor:
        """Frames uint8 [N, S, S, 3] in RGB -> image embeddings float32 [N, 1, E], without gradients.

        Raises:
            InputError: another shape or dtype.
        """
        frames = check_frames(frames, self.frame_size_px)
        if len(frames) == 0:
            return torch.empty(0, *self.feature_shape, device=self.device)
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            encoded = [
                self._encode_batch(batch.to(self.device, non_blocking=True))
                for batch in frames.split(_FRAMES_PER_BATCH)
            ]
        return torch.cat(encoded).float()[:, None, :]

    def _encode_batch(self, frames: Tensor) -> Tensor:
        pixels, network = self.pixel_values(frames), self.network
        if self.config.name != "siglip2":
            return pooled(network.get_image_features(pixel_values=pixels))
        patches = _patches(pixels, self.config.patch_size_px)  # [N, L, 3 * P * P]
        side = self.config.frame_size_px // self.config.patch_size_px
        return pooled(
            network.get_image_features(
                pixel_values=patches,
                pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.int32, device=self.device),
                spatial_shapes=torch.full((len(patches), 2), side, device=self.device),
            )
        )

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors: float32 [N, E] of length 1. See `ClipText.encode`."""
        return self.text_encoder.encode(texts)

    def encode_video(
        self, features: Array, frame_mask: Array, frame_times_s: Array, texts: Sequence[str | None] | None = None
    ) -> Tensor:
        """Videos, texts that belong to them (transcripts, say), or both, to vectors. Frame times play no part.

        A video is v, the mean of its frames' embeddings of length 1; a text alone is its own vector t. With both, it is
        v + `config.text_weight` * (t - m), m being the mean vector of the class prompts: all texts lie close together
        and far from all images, so with t itself a moment with any transcript at all would come before those without.

        Args, Returns and Raises as `VideoBert.encode_video`.

        Source: Liang et al., "Mind the Gap", 2022, for how texts and images lie.
        """
        videos = check_videos(features, frame_mask, frame_times_s, texts, self.feature_shape, self.device)
        seen = F.normalize(mean_over_frames(F.normalize(videos.features[:, :, 0], dim=2), videos.frame_mask), dim=1)
        rows = [i for i, text in enumerate(videos.texts) if text]
        if not rows:
            return seen
        said = self.encode_text([videos.texts[i] for i in rows])
        has_frames = videos.frame_mask[rows].any(dim=1, keepdim=True)
        centre = self.class_embeddings.mean(dim=0)
        both = seen[rows] + self.config.text_weight * (said - centre)
        seen[rows] = F.normalize(torch.where(has_frames, both, said), dim=1)
        return seen

    def classify(self, features: Array, frame_mask: Array) -> Tensor:
        """Probabilities of the 1,000 ImageNet classes, the mean over the frames: float32 [B, C], without gradients.

        Those of a frame are the softmax of its cosines with the prompts of the class names, scaled as the model learnt.

        Raises:
            InputError: shapes disagree.
        """
        features, frame_mask = check_features(features, frame_mask, self.feature_shape, self.device)
        with torch.no_grad():
            cosines = F.normalize(features[:, :, 0], dim=2) @ self.class_embeddings.T
            return mean_over_frames((cosines / self.config.zero_shot_temperature).softmax(dim=2), frame_mask)

    def encode_and_classify(
        self, features: Array, frame_mask: Array, frame_times_s: Array, texts: Sequence[str | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `encode_video` and `classify` give."""
        return self.encode_video(features, frame_mask, frame_times_s, texts), self.classify(features, frame_mask)

    def zero_shot(self, video_embeddings: Array, labels: Sequence[str]) -> Tensor:
        """How well each of any labels fits each video: float32 [B, L]. See `VideoBert.zero_shot`.

        Raises:
            InputError: there is no label, or the vectors have another length.
        """
        if not labels:
            raise InputError("labels must name at least one label, got none")
        videos = check_embeddings(video_embeddings, self.embedding_dim, self.device)
        prompts = self.encode_text(self._prompts(labels))
        return (videos @ prompts.T / self.config.zero_shot_temperature).softmax(dim=1)

    @functools.cached_property
    def class_embeddings(self) -> Tensor:
        """The prompts of the class names: float32 [C, E] of length 1. The first time, they take up to minutes."""
        return cached_embeddings(self._prompts(self.label_names), self.fingerprint, self.encode_text).to(self.device)

    def _prompts(self, labels: Sequence[str]) -> list[str]:
        return [self.config.zero_shot_prompt.format(label=label) for label in labels]


def load_clip(config: ClipConfig, folder: Path, checksums: Mapping[str, str], autocast: bool = False) -> ClipModel:
    """The whole model on the CPU. Raises as `load_clip_text`."""
    return ClipModel(config, read_clip(config, folder), checksums, autocast).eval()


def _patches(pixels: Tensor, side: int) -> Tensor:
    """Float [N, 3, S, S] -> [N, (S / P)², 3 * P * P]: patches row by row, each as rows of pixels of three colours."""
    num_frames, channels, size, _ = pixels.shape
    grid = pixels.reshape(num_frames, channels, size // side, side, size // side, side)
    return grid.permute(0, 2, 4, 3, 5, 1).reshape(num_frames, -1, side * side * channels)
