"""The three stages of the recipe as functions of a batch of photographs.

Shapes: B photographs in a batch, V views of each, C = 5 captions of each, T frames, D numbers a frame, E joint space.
Captions are numbered 5 · photograph + 0 ... 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.objectives import contrastive_loss
from model.text_encoder import TokenStates
from model.videobert import VideoBert
from recipes.flickr8k.cache import LateLayers, TokenCache
from recipes.flickr8k.data import CAPTIONS_PER_IMAGE

_MAX_SCALE = 100.0  # CLIP's
_MAX_FRAMES = 4
_FRAME_PERIOD_S = 1.0
_NUM_DISTILLED = 32  # views a step, as the untouched layers have to run on them too
_SENTENCE_DROPOUT = 0.2
_NOISE_SHARE = 0.4  # of the transcripts


class Temperature(nn.Module):
    """The learned scale of cosines, kept below 100."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def forward(self) -> Tensor:
        return self.log_scale.clamp(max=math.log(_MAX_SCALE)).exp()


class BackboneLoss:
    """First stage: the last layers of the CNN, with tower and adapter, on single views without transcripts.

    Distillation keeps ImageNet's classes alive: on a few of the views the class probabilities have to stay what the
    untouched layers give (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015).
    """

    def __init__(
        self,
        model: VideoBert,
        late: LateLayers,
        views: Sequence[Tensor],
        sentences: Tensor,
        temperature: Temperature,
        distillation: float,
    ) -> None:
        self.model, self.late, self.views, self.sentences = model, late, views, sentences
        self.teacher = deepcopy(late)
        self.temperature, self.distillation = temperature, distillation

    def __call__(self, rows: Tensor) -> Tensor:
        number = torch.randint(len(self.views), rows.shape).tolist()
        states = torch.stack([self.views[v][row] for v, row in zip(number, rows.tolist(), strict=True)])  # [B, A, 7, 7]
        features = self.late(states)  # [B, D]
        single, text = torch.ones(len(rows), 1, dtype=torch.bool), no_text(len(rows), self.model.embedding_dim)
        videos = self.model.fuse(text, features[:, None, None], single, single.float())
        captions = pick_captions(rows, 2)
        queries = self.model.text_encoder.adapt(self.sentences[captions.flatten()])
        loss = contrastive_loss(queries, videos, _images(captions), self.temperature())
        return loss + self.distillation * self._distance(states[:_NUM_DISTILLED], features[:_NUM_DISTILLED])

    def _distance(self, states: Tensor, features: Tensor) -> Tensor:
        """Cross-entropy of the class probabilities against those of the untouched layers."""
        classifier = self.model.frame_encoder.classifier
        with torch.no_grad():
            target = classifier(self.teacher(states)).softmax(dim=1)
        return F.cross_entropy(classifier(features), target)


class _FeatureLoss:
    """What the later stages share: videos of one to four views, from features that no longer change."""

    def __init__(
        self, model: VideoBert, features: Tensor, tokens: TokenCache, sentences: Tensor, temperature: Temperature
    ) -> None:
        self.model, self.features, self.tokens, self.sentences = model, features, tokens, sentences
        self.temperature = temperature

    def _frames(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, T, 1, D], mask and times of one view of each photograph, or in half of the steps up to four."""
        most = 1 if torch.rand(()) < 0.5 else int(torch.randint(2, _MAX_FRAMES + 1, ()))
        number = torch.randint(self.features.shape[1], (len(rows), most))
        features = self.features[rows[:, None], number].float()[:, :, None]
        mask = torch.arange(most) < torch.randint(1, most + 1, (len(rows), 1))
        return features, mask, (torch.arange(most) * _FRAME_PERIOD_S).expand(len(rows), -1)


class VideoLoss(_FeatureLoss):
    """Second stage: frame head, gate and adapter, on videos without transcripts."""

    def __call__(self, rows: Tensor) -> Tensor:
        queries, image = _queries(self.model, self.sentences, pick_captions(rows, 2))
        videos = self.model.fuse(no_text(len(rows), self.model.embedding_dim), *self._frames(rows))
        return contrastive_loss(queries, videos, image, self.temperature())


class TranscriptLoss(_FeatureLoss):
    """Third stage: the stack, on videos with a caption as transcript.

    Some transcripts are the captions of other photographs: the tower has to find out which to believe.
    """

    def __call__(self, rows: Tensor) -> Tensor:
        captions = pick_captions(rows, 3)
        queries, image = _queries(self.model, self.sentences, captions[:, 1:])
        transcripts = self.tokens.batch(_with_noise(captions[:, 0], len(self.tokens)))
        videos = self.model.fuse(transcripts, *self._frames(rows))
        return contrastive_loss(queries, videos, image, self.temperature())


def pick_captions(rows: Tensor, count: int) -> Tensor:
    """`count` different captions of each photograph: int64 [B] -> [B, count]."""
    choice = torch.rand(len(rows), CAPTIONS_PER_IMAGE).argsort(dim=1)[:, :count]
    return rows[:, None] * CAPTIONS_PER_IMAGE + choice


def no_text(num_items: int, width: int) -> TokenStates:
    """Token states of items without text."""
    return TokenStates(torch.empty(num_items, 0, width), torch.empty(num_items, 0, dtype=torch.bool))


def _queries(model: VideoBert, sentences: Tensor, captions: Tensor) -> tuple[Tensor, Tensor]:
    """Two queries a photograph from two captions [B, 2]: one caption, and a random mixture of the two.

    Returns:
        Vectors [2B, E], and the row in the batch that each belongs to, int64 [2B].
    """
    one, two = sentences[captions].unbind(dim=1)
    share = torch.rand(len(one), 1)
    asked = torch.stack([one, share * one + (1 - share) * two], dim=1).flatten(0, 1)
    queries = model.text_encoder.adapt(F.normalize(F.dropout(asked, _SENTENCE_DROPOUT), dim=1))
    return queries, _images(captions)


def _images(captions: Tensor) -> Tensor:
    """Captions [B, M] -> the row in the batch of each, int64 [B * M]."""
    return torch.arange(len(captions)).repeat_interleave(captions.shape[1])


def _with_noise(captions: Tensor, num_captions: int) -> Tensor:
    """Replaces some captions by those of other photographs, half of them from the batch, half from anywhere."""
    anywhere = torch.randint(num_captions, captions.shape)
    strange = torch.where(torch.rand(captions.shape) < 0.5, captions.roll(1), anywhere)
    return torch.where(torch.rand(captions.shape) < _NOISE_SHARE, strange, captions)
