"""VideoBert: frames, texts and videos to vectors of one space, where cosine similarity means likeness.

Shapes: N frames, S = side of a frame in pixels, K tokens per frame, D numbers per token, B videos (or segments),
T frames of the longest, C classes, L labels, E = `embedding_dim`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.config import VideoBertConfig, fingerprint
from model.conse import centred, class_probabilities, conse_embedding, mean_over_frames
from model.errors import InputError
from model.frame_encoder import FrameEncoder
from model.fusion import FusionTower
from model.inputs import Array, VideoInputs, check_embeddings, check_features, check_frames, check_videos
from model.labels import Labels
from model.runtime import FrameRuntime, TorchRuntime
from model.text_encoder import TextEncoder, TokenStates

_VIDEOS_PER_BATCH = 64


class VideoBert(nn.Module):
    """The whole model. Make one with `model.load_model`.

    A video's vector is `normalise(anchor + gate * residual)`. The anchor comes from the backbones alone (ConSE for the
    frames, the sentence embedding for the text) and works from the first second; the residual is what the fusion tower
    has learnt, and the gate starts at 0.
    With a frame head, the head joins the video's anchor, and a text counts by its agreement with what is seen.

    Attributes:
        config: the settings.
        embedding_dim: length of the vectors of the joint space.
        feature_shape: (K, D), the shape of one frame's features.
        frame_size_px: S.
        label_names: the C class names, in the order of `classify`.
        runtime: what runs the frame encoder.
    """

    label_embeddings: Tensor
    _centred_labels: Tensor

    def __init__(
        self,
        config: VideoBertConfig,
        text_encoder: TextEncoder,
        frame_encoder: FrameEncoder,
        labels: Labels,
        checksums: Mapping[str, str],
    ) -> None:
        super().__init__()
        self.config = config
        self.embedding_dim = config.embedding_dim
        self.feature_shape = config.feature_shape
        self.frame_size_px = config.frame_size_px
        self.label_names = list(labels.names)
        self.text_encoder = text_encoder
        self.frame_encoder = frame_encoder
        self.fusion = FusionTower(config)
        self.gate = nn.Parameter(torch.zeros(()))
        self.register_buffer("label_embeddings", labels.embeddings, persistent=False)
        self.register_buffer("_centred_labels", centred(labels.embeddings), persistent=False)
        self.runtime: FrameRuntime = TorchRuntime(frame_encoder)
        self._checksums = dict(checksums)

    @property
    def fingerprint(self) -> str:
        """Hash of the settings and of the checksums of the weights: equal where vectors may be compared."""
        return fingerprint(self.config, self._checksums)

    @property
    def device(self) -> torch.device:
        return self.gate.device

    def encode_frames(self, frames: Array) -> Tensor:
        """Features of single frames, without gradients.

        Args:
            frames: uint8 [N, S, S, 3], RGB.

        Returns:
            float32 [N, K, D]. A frame's features do not depend on the frames it comes with.

        Raises:
            InputError: another shape or dtype.
        """
        frames = check_frames(frames, self.frame_size_px)
        if len(frames) == 0:
            return torch.empty(0, *self.feature_shape, device=self.device)
        return self.runtime(frames).to(self.device)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Texts to vectors: float32 [N, E] of length 1. See `TextEncoder.encode`."""
        return self.text_encoder.encode(texts)

    def encode_video(
        self,
        features: Array,
        frame_mask: Array,
        frame_times_s: Array,
        texts: Sequence[str | None] | None = None,
    ) -> Tensor:
        """Videos, texts that belong to them (transcripts, say), or both, to vectors.

        With frames only, the anchor is ConSE's; with text only, it is the text's sentence embedding, so that
        `encode_video` of a text equals `encode_text` of it; with both, the normalised sum of the two. Training adds to
        videos, and with a frame head weighs a text by its agreement with the frames. In evaluation
        mode there are no gradients, and with the gate at 0 the tower is not run, as it could change nothing.

        Args:
            features: float [B, T, K, D] from `encode_frames`; float16 will do. T may be 0.
            frame_mask: bool [B, T], True for real frames; all False for a text without video.
            frame_times_s: float [B, T], presentation times in seconds.
            texts: B texts; None or blank for a video without text.

        Returns:
            float32 [B, E] of length 1. Each depends on its own item only.

        Raises:
            InputError: shapes or lengths disagree, or an item has neither frames nor text.
        """
        videos = check_videos(features, frame_mask, frame_times_s, texts, self.feature_shape, self.device)
        with torch.set_grad_enabled(self.training and torch.is_grad_enabled()):
            encoded = [self._encode_batch(videos, b)[0] for b in _batches(len(videos.features))]
        return torch.cat(encoded) if encoded else torch.empty(0, self.embedding_dim, device=self.device)

    def classify(self, features: Array, frame_mask: Array) -> Tensor:
        """Class probabilities of videos, the mean over their frames.

        Args:
            features: float [B, T, K, D].
            frame_mask: bool [B, T].

        Returns:
            float32 [B, C], in the order of `label_names`; rows sum to 1, or are 0 for an item without frames.

        Raises:
            InputError: shapes disagree.
        """
        features, frame_mask = check_features(features, frame_mask, self.feature_shape, self.device)
        with torch.no_grad():
            return mean_over_frames(class_probabilities(self.frame_encoder.logits(features)), frame_mask)

    def encode_and_classify(
        self, features: Array, frame_mask: Array, frame_times_s: Array, texts: Sequence[str | None] | None = None
    ) -> tuple[Tensor, Tensor]:
        """What `encode_video` and `classify` give, without looking at the frames' classes twice; no gradients."""
        videos = check_videos(features, frame_mask, frame_times_s, texts, self.feature_shape, self.device)
        vectors = torch.empty(len(videos.features), self.embedding_dim, device=self.device)
        probabilities = torch.empty(len(videos.features), len(self.label_names), device=self.device)
        with torch.no_grad():
            for b in _batches(len(vectors)):
                vectors[b], logits = self._encode_batch(videos, b)
                probabilities[b] = mean_over_frames(class_probabilities(logits), videos.frame_mask[b])
        return vectors, probabilities

    def zero_shot(self, video_embeddings: Array, labels: Sequence[str]) -> Tensor:
        """How well each of any labels fits each video, compared with the other labels.

        Args:
            video_embeddings: float [B, E] of length 1, from `encode_video`.
            labels: at least one name or short phrase; each is put into `config.zero_shot_prompt`.

        Returns:
            float32 [B, L], the softmax of cosine / `config.zero_shot_temperature`: rows sum to 1, so with labels of
            which none fits, the least bad still gets its share.

        Raises:
            InputError: there is no label, or the vectors have another length.
        """
        if not labels:
            raise InputError("labels must name at least one label, got none")
        videos = check_embeddings(video_embeddings, self.embedding_dim, self.device)
        prompts = self.encode_text([self.config.zero_shot_prompt.format(label=label) for label in labels])
        return (videos @ prompts.T / self.config.zero_shot_temperature).softmax(dim=1)

    def _encode_batch(self, videos: VideoInputs, b: slice) -> tuple[Tensor, Tensor]:
        """Vectors [B, E], and logits [B, T, C]."""
        tokens, features = self._text_states(videos.texts[b]), videos.features[b]
        logits = self.frame_encoder.logits(features)
        return self._fuse(tokens, features, videos.frame_mask[b], videos.times_s[b], logits), logits

    def fuse(self, tokens: TokenStates, features: Tensor, frame_mask: Tensor, frame_times_s: Tensor) -> Tensor:
        """Token states (none for a video without text) and frame features to vectors, for training: keeps gradients.

        Args:
            tokens: states [B, L, E] and mask of `TextEncoder.token_states`; L may be 0.
            features, frame_mask, frame_times_s: as `encode_video`, on the model's device, float32.

        Returns:
            float [B, E] of length 1.
        """
        return self._fuse(tokens, features, frame_mask, frame_times_s, self.frame_encoder.logits(features))

    def _fuse(
        self, tokens: TokenStates, features: Tensor, frame_mask: Tensor, frame_times_s: Tensor, logits: Tensor
    ) -> Tensor:
        text, video = self.text_encoder.pool(tokens), self._video_anchor(logits, frame_mask)
        anchor = F.normalize(video + text, dim=1)  # what is missing is zero
        has_frames = frame_mask.any(dim=1, keepdim=True)
        if not self.training and (self.gate == 0 or not has_frames.any()):
            return anchor
        if self.fusion.frame_head is not None:
            video = F.normalize(video + self.gate * self.fusion.of_mean_frame(features, frame_mask), dim=1)
            anchor = video + torch.where(has_frames, self._agreement(video, text), 1.0) * text
            if not tokens.mask.any():
                return anchor
            if not self.training and self.fusion.is_silent:
                return F.normalize(anchor, dim=1)
            has_frames = has_frames & tokens.mask.any(dim=1, keepdim=True)
        residual = self.fusion(tokens, features, frame_mask, frame_times_s).residual
        return F.normalize(anchor + self.gate * residual * has_frames, dim=1)

    def _agreement(self, video: Tensor, text: Tensor) -> Tensor:
        """How much a text counts, by how far it is believed to speak of what is seen: vectors [B, E] -> [B, 1]."""
        cosine, fusion = (video * text).sum(dim=1, keepdim=True), self.config.fusion
        return fusion.agreement_weight * ((cosine - fusion.agreement_midpoint) / fusion.agreement_width).sigmoid()

    def _video_anchor(self, logits: Tensor, frame_mask: Tensor) -> Tensor:
        probabilities = class_probabilities(logits, self.config.conse_temperature)
        return conse_embedding(mean_over_frames(probabilities, frame_mask), self._centred_labels)

    def _text_states(self, texts: list[str]) -> TokenStates:
        """Token states of the items that have a text, with no token for the others."""
        rows = [i for i, text in enumerate(texts) if text]
        if not rows:
            empty = torch.empty(len(texts), 0, self.embedding_dim, device=self.device)
            return TokenStates(empty, torch.empty(len(texts), 0, dtype=torch.bool, device=self.device))
        some = self.text_encoder.token_states([texts[i] for i in rows])
        states = some.states.new_zeros(len(texts), *some.states.shape[1:])
        mask = some.mask.new_zeros(len(texts), some.mask.shape[1])
        index = torch.tensor(rows, device=self.device)
        return TokenStates(states.index_copy(0, index, some.states), mask.index_copy(0, index, some.mask))


def _batches(num_videos: int) -> Iterator[slice]:
    for start in range(0, num_videos, _VIDEOS_PER_BATCH):
        yield slice(start, start + _VIDEOS_PER_BATCH)
