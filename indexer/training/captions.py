"""Training on captions: images and videos and their captions are to find each other.

Shapes: B items in a batch, M queries, E = `embedding_dim`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from indexer.training.dataset import FeatureSet
from indexer.training.items import Items
from indexer.training.metrics import retrieval_metrics
from model.config import VideoBertConfig
from model.objectives import contrastive_loss
from model.text_encoder import TokenStates, mean_pool
from model.training_plan import Group
from model.videobert import VideoBert
from model.weights import pretrained_model

_SENTENCES, _STARTS = "sentences.npy", "sentence_starts.npy"
_TEXTS_PER_BATCH = 64
_HEAD_WIDTH = 512
_START_SCALE, _MAX_SCALE = 20.0, 100.0  # of cosines; the maximum is CLIP's
_SCALE_RATE = 10.0  # one number needs a higher learning rate
_SENTENCE_DROPOUT = 0.2
_MOST_FRAMES = 4
_VIDEOS_PER_BATCH = 256


def write_sentences(folder: Path, captions: list[list[str]], model: VideoBert) -> None:
    """Embeds all captions before the adapter, in the order of the items: float32 [M, E] in the folder."""
    texts = [text for some in captions for text in some]
    sentences = np.empty((len(texts), model.embedding_dim), np.float32)
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    for start in range(0, len(texts), _TEXTS_PER_BATCH):
        rows = by_length[start : start + _TEXTS_PER_BATCH]
        with torch.inference_mode():
            sentences[rows] = mean_pool(model.text_encoder.token_states([texts[i] for i in rows])).cpu().numpy()
    np.save(folder / _SENTENCES, sentences)
    np.save(folder / _STARTS, np.cumsum([0, *map(len, captions)]))


def trainable_model(base: VideoBert) -> VideoBert:
    """A model with a frame head and a query adapter; where `base` has none, fresh ones that change nothing yet."""
    model = pretrained_model(caption_config(base.config), {})
    known = base.state_dict()
    model.load_state_dict({key: known.get(key, value) for key, value in model.state_dict().items()})
    if model.gate.item() == 0:  # the tower has learnt nothing: it must not disturb
        with torch.no_grad():
            model.gate.fill_(1.0)
            model.fusion.output.weight.zero_()
            model.fusion.output.bias.zero_()
    return model


def caption_config(config: VideoBertConfig) -> VideoBertConfig:
    """The settings of the model that comes out of this training, if it starts with these."""
    new = ("fusion.frame_head.", "gate", "text_encoder.adapter.")  # beside a frame head, a fresh output is at zero
    known = tuple(part for part in new if not part.startswith(config.trained))  # startswith(()) is False
    return replace(
        config,
        text=replace(config.text, adapter_width=config.text.adapter_width or _HEAD_WIDTH),
        fusion=replace(config.fusion, frame_head_width=config.fusion.frame_head_width or _HEAD_WIDTH),
        trained=config.trained + known,
    )


class CaptionModel(nn.Module):
    """A model and the learned scale of its cosines."""

    def __init__(self, videobert: VideoBert) -> None:
        super().__init__()
        self.videobert = videobert
        self.log_scale = nn.Parameter(torch.tensor(math.log(_START_SCALE)))
        self.videobert.requires_grad_(False)
        for part in self.learning_parts():
            part.requires_grad_(True)
        self.videobert.gate.requires_grad_(True)

    def learning_parts(self) -> list[nn.Module]:
        """Frame head and query adapter."""
        head, adapter = self.videobert.fusion.frame_head, self.videobert.text_encoder.adapter
        assert head is not None
        assert adapter is not None
        return [head, adapter]

    def scale(self) -> Tensor:
        return self.log_scale.clamp(max=math.log(_MAX_SCALE)).exp()


class CaptionTask:
    """See `model.training_plan.Task`. Items are those of `items` that are not held out."""

    metric: str | None = "mean_recall"
    objective_weights: Mapping[str, float] = {}

    def __init__(self, folder: Path, model: VideoBert) -> None:
        self.module = CaptionModel(model)
        self._items = Items.load(folder)
        self._features = FeatureSet(folder)
        self._sentences = torch.from_numpy(np.load(folder / _SENTENCES))
        self._starts = np.load(folder / _STARTS)
        self._train, self._held_out = np.flatnonzero(~self._items.held_out), np.flatnonzero(self._items.held_out)
        self.num_items = len(self._train)
        if not len(self._held_out):
            self.metric = None

    def groups(self) -> list[Group]:
        weights = [list(part.parameters()) for part in self.module.learning_parts()]
        return [*map(Group, weights), Group([self.module.videobert.gate]), Group([self.module.log_scale], _SCALE_RATE)]

    def outputs(self, items: Tensor) -> tuple[Tensor, ...]:
        """Videos [B, E], and two queries of each [B, 2, E]: one caption, and a random mixture of it and another."""
        rows = self._train[items.numpy()]
        videos = self._videos(rows, augmented=True)
        one, two = (self._sentences[self._any_caption(rows)].to(videos.device) for _ in range(2))
        share = torch.rand(len(one), 1, device=videos.device)
        asked = torch.stack([one, share * one + (1 - share) * two], dim=1).flatten(0, 1)
        asked = F.normalize(F.dropout(asked, _SENTENCE_DROPOUT), dim=1)
        queries = self.module.videobert.text_encoder.adapt(asked)
        return videos, queries.view(len(rows), 2, -1)

    def losses(self, outputs: tuple[Tensor, ...], items: Tensor) -> dict[str, Tensor]:
        videos, queries = outputs
        of_query = torch.arange(len(videos), device=videos.device).repeat_interleave(queries.shape[1])
        return {"contrastive": contrastive_loss(queries.flatten(0, 1), videos, of_query, self.module.scale())}

    def validate(self) -> dict[str, float]:
        """Recall of items that are held out, by all their captions."""
        rows, device = self._held_out, self.module.log_scale.device
        batches = [rows[start : start + _VIDEOS_PER_BATCH] for start in range(0, len(rows), _VIDEOS_PER_BATCH)]
        videos = torch.cat([self._videos(batch, augmented=False) for batch in batches])
        captions = np.concatenate([np.arange(self._starts[row], self._starts[row + 1]) for row in rows])
        target = np.repeat(np.arange(len(rows)), self._starts[rows + 1] - self._starts[rows])
        queries = self.module.videobert.text_encoder.adapt(self._sentences[captions].to(device))
        metrics = retrieval_metrics((queries @ videos.T).float().cpu().numpy(), target)
        return metrics | {"mean_recall": sum(metrics[f"recall@{k}"] for k in (1, 5, 10)) / 3}

    def describe(self, item: int) -> str:
        return self._items.names[self._train[item]]

    def _videos(self, rows: np.ndarray, *, augmented: bool) -> Tensor:
        """Vectors [B, E] of items, without any transcript."""
        frames = self._features.some_frames(rows.tolist(), _MOST_FRAMES) if augmented else None
        batch, model = self._features.batch(rows.tolist(), frames), self.module.videobert
        device = self.module.log_scale.device
        none = torch.empty(len(rows), 0, dtype=torch.bool, device=device)
        no_text = TokenStates(torch.empty(len(rows), 0, model.embedding_dim, device=device), none)
        return model.fuse(no_text, *(tensor.to(device) for tensor in batch))

    def _any_caption(self, rows: np.ndarray) -> np.ndarray:
        """A random caption of each item."""
        counts = self._starts[rows + 1] - self._starts[rows]
        return self._starts[rows] + (torch.rand(len(rows)).numpy() * counts).astype(np.int64)
