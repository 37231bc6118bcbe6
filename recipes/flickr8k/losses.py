"""What the two stages of the recipe minimise, as functions of a batch of photographs.

Shapes: B photographs in a batch, V views of each, 7 x 7 = 49 places with A activations each, D numbers a frame, E joint
space. Captions are numbered 5 · photograph + 0 ... 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.frame_encoder import EfficientNetLite0
from model.objectives import contrastive_loss
from model.text_encoder import TokenStates
from model.videobert import VideoBert
from recipes.flickr8k.data import CAPTIONS_PER_IMAGE
from recipes.flickr8k.late_layers import LateLayers

_MAX_SCALE = 100.0  # CLIP's
_CAPTION_SCALE = 20.0
_SENTENCE_DROPOUT = 0.2
_NUM_DISTILLED = 32  # views a step, as the untouched layers have to run on them too


class Temperature(nn.Module):
    """The learned scale of cosines, kept below 100."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def forward(self) -> Tensor:
        return self.log_scale.clamp(max=math.log(_MAX_SCALE)).exp()


class CnnLoss:
    """First stage: the last layers of the CNN, under the stack of a tower that is then thrown away.

    Distillation keeps ImageNet's classes alive: on a few of the views the class probabilities have to stay what the
    untouched layers give (Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, at temperature 1).
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
        assert isinstance(model.frame_encoder, EfficientNetLite0)
        self.classifier, self.teacher = model.frame_encoder.classifier, deepcopy(late).eval()
        self.temperature, self.distillation = temperature, distillation

    def __call__(self, rows: Tensor) -> Tensor:
        number = torch.randint(len(self.views), rows.shape).tolist()
        states = torch.stack([self.views[v][row] for v, row in zip(number, rows.tolist(), strict=True)])  # [B, 49, A]
        features = self.late(states)  # [B, D]
        captions = pick_captions(rows, 2)
        queries = self.model.text_encoder.adapt(self.sentences[captions.flatten()])
        videos = _encode(self.model, features)
        loss = contrastive_loss(queries, videos, _images(captions), self.temperature())
        return loss + self.distillation * self._distance(states[:_NUM_DISTILLED], features[:_NUM_DISTILLED])

    def _distance(self, states: Tensor, features: Tensor) -> Tensor:
        """Cross-entropy of the class probabilities against those of the untouched layers."""
        with torch.no_grad():
            target = self.classifier(self.teacher(states)).softmax(dim=1)
        return F.cross_entropy(self.classifier(features), target)


class HeadLoss:
    """Second stage: frame head, gate and query adapter, on features [N, V, D] that no longer change.

    The queries are one caption of a photograph, and a random mixture of two. Two captions of one photograph find each
    other as well, so that a text still finds a transcript.
    """

    def __init__(
        self, model: VideoBert, features: Tensor, sentences: Tensor, temperature: Temperature, captions_weight: float
    ) -> None:
        self.model, self.features, self.sentences = model, features, sentences
        self.temperature, self.captions_weight = temperature, captions_weight

    def __call__(self, rows: Tensor) -> Tensor:
        videos = _encode(self.model, self.features[rows, torch.randint(self.features.shape[1], rows.shape)].float())
        captions = pick_captions(rows, 2)
        one, two = self.sentences[captions].unbind(dim=1)
        loss = contrastive_loss(self._queries(one, two), videos, _images(captions), self.temperature())
        first, second = self.model.text_encoder.adapt(one), self.model.text_encoder.adapt(two)
        return loss + self.captions_weight * contrastive_loss(first, second, torch.arange(len(rows)), _CAPTION_SCALE)

    def _queries(self, one: Tensor, two: Tensor) -> Tensor:
        """Sentence embeddings of two captions a photograph [B, E] -> two queries a photograph [2B, E]."""
        share = torch.rand(len(one), 1)
        asked = torch.stack([one, share * one + (1 - share) * two], dim=1).flatten(0, 1)
        return self.model.text_encoder.adapt(F.normalize(F.dropout(asked, _SENTENCE_DROPOUT), dim=1))


def pick_captions(rows: Tensor, count: int) -> Tensor:
    """`count` different captions of each photograph: int64 [B] -> [B, count]."""
    choice = torch.rand(len(rows), CAPTIONS_PER_IMAGE).argsort(dim=1)[:, :count]
    return rows[:, None] * CAPTIONS_PER_IMAGE + choice


def no_text(num_items: int, width: int) -> TokenStates:
    """Token states of items without text."""
    return TokenStates(torch.empty(num_items, 0, width), torch.empty(num_items, 0, dtype=torch.bool))


def _encode(model: VideoBert, features: Tensor) -> Tensor:
    """Videos of one frame, without text: features [B, D] -> [B, E]."""
    single = torch.ones(len(features), 1, dtype=torch.bool)
    return model.fuse(no_text(len(features), model.embedding_dim), features[:, None, None], single, single.float())


def _images(captions: Tensor) -> Tensor:
    """Captions [B, M] -> the row in the batch of each, int64 [B * M]."""
    return torch.arange(len(captions)).repeat_interleave(captions.shape[1])
