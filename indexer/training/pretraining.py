"""Pretraining on an index: its stored frame features and transcripts, without decoding anything again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from indexer.errors import IndexSettingsError, UsageError
from indexer.ingest.fuse import STORED
from indexer.store.index import IndexStore
from indexer.store.snapshot import Snapshot
from indexer.training.dataset import FeatureSet, FeatureWriter
from indexer.training.feature_cache import Features
from indexer.training.items import Items
from indexer.training.split import hold_out
from model.config import VideoBertConfig
from model.facts import canonical_name, frames_alike, frames_fingerprint, model_fingerprint
from model.pretraining import OBJECTIVES, FeatureBatch, PretrainingModel, PretrainingSettings
from model.training_plan import Group
from model.videobert import VideoBert
from model.visual_vocabulary import VisualVocabulary

VOCABULARY = "vocabulary.safetensors"
_MOST_VOCABULARY_FRAMES = 200_000  # a sample is enough to place the centroids
_FRAMES_PER_WORD = 20
_MOST_BRANCHES, _MOST_LEVELS = 12, 4  # the paper's
_HELD_OUT_BATCH = 64


def open_index(path: str, model: str | None) -> tuple[Snapshot, str]:
    """The newest view of an index, and the name of the model to pretrain: that of the index.

    Raises:
        IndexNotFoundError, IndexFormatError: as `IndexStore.open`.
        IndexSettingsError: the index was made with a model of other frame features.
        UsageError: it holds no moments.
    """
    store = IndexStore.open(path)
    name = canonical_name(model or store.config.model)  # workers run in another folder
    made_with = store.config.frames_fingerprint or _of_installed(store)
    if not frames_alike(frames_fingerprint(name), made_with):
        raise IndexSettingsError(
            f"the index at {path!r} was made with the model {store.config.model!r}, whose frame features are others "
            f"than those of {name!r}: leave out --model, or index again"
        )
    snapshot = store.snapshot()
    if not snapshot.num_segments:
        raise UsageError(f"the index at {path!r} holds no moments to train on: index some videos first")
    return snapshot, name


def _of_installed(store: IndexStore) -> str:
    """For an index that was made before it kept the fingerprint of its features: that of its model, if it is here."""
    unchanged = model_fingerprint(store.config.model) == store.config.model_fingerprint
    return frames_fingerprint(store.config.model) if unchanged else ""


def write_moments(folder: Path, snapshot: Snapshot, held_out_share: float, seed: int) -> Items:
    """Copies features, times and transcripts of all moments that have frames into the run folder.

    Raises:
        UsageError: no moment has frames.
    """
    rows = np.arange(snapshot.num_segments)
    num_frames = np.array(snapshot.read(rows, ["num_frames"])["num_frames"].to_pylist(), np.int64)
    kept = np.flatnonzero(num_frames > 0)
    if not len(kept):
        raise UsageError("no moment of the index has frame features: index the videos again")
    item_of_row = np.full(len(rows), -1)
    item_of_row[kept] = np.arange(len(kept))
    shape = snapshot.config.feature_shape
    writer = FeatureWriter(folder, num_frames[kept].tolist(), shape)
    transcripts: list[list[str]] = [[] for _ in kept]
    for file_rows, table in snapshot.read_file_by_file(["frame_times_s", "frame_features", "transcript"]):
        for row, values in zip(file_rows, table.to_pylist(), strict=True):
            if (item := int(item_of_row[row])) >= 0:
                features = np.frombuffer(values["frame_features"], STORED).reshape(-1, *shape)
                writer.put(item, Features(features, np.array(values["frame_times_s"], np.float32)))
                transcripts[item] = [values["transcript"]] if values["transcript"] else []
    writer.close()
    videos = [snapshot.videos["uri"][int(row)].as_py() for row in snapshot.rows.video_rows[kept]]
    names = [f"{uri} at {start:.1f} s" for uri, start in zip(videos, snapshot.rows.start_s[kept], strict=True)]
    held_out = hold_out(videos, [None] * len(videos), held_out_share, seed)  # whole videos
    items = Items(names=names, texts=transcripts, held_out=held_out, labels=[], several=False)
    items.save(folder)
    return items


def fit_vocabulary(folder: Path, branching: int | None, num_levels: int | None, seed: int) -> VisualVocabulary:
    """Visual words of the features in the run folder, also written there.

    Args:
        folder: the run folder.
        branching, num_levels: of the tree; None chooses both by the number of frames, up to the paper's 12 and 4.
        seed: of the sample and the start of k-means.

    Raises:
        UsageError: there are fewer frames than branches.
    """
    frames = FeatureSet(folder).all_frames(_MOST_VOCABULARY_FRAMES, seed)
    vectors = frames.flatten(0, 1)
    levels = num_levels or (
        2 if len(vectors) < 2 * _FRAMES_PER_WORD * 4**3 else _MOST_LEVELS if len(vectors) > 100_000 else 3
    )
    branches = branching or max(2, min(_MOST_BRANCHES, int((len(vectors) / _FRAMES_PER_WORD) ** (1 / levels))))
    if len(vectors) < branches:
        raise UsageError(
            f"the index has {len(vectors)} frame features, and a vocabulary of {branches} branches needs at least as "
            "many: index more videos, or lower --branching"
        )
    vocabulary = VisualVocabulary.fit(vectors, branches, levels, seed)
    vocabulary.save(folder / VOCABULARY)
    return vocabulary


class PretrainTask:
    """See `model.training_plan.Task`. Items are the moments of videos that are not held out."""

    metric: str | None = "negative_loss"

    def __init__(self, folder: Path, model: VideoBert, settings: PretrainingSettings) -> None:
        self.module = PretrainingModel(model, VisualVocabulary.load(folder / VOCABULARY), settings)
        self.objective_weights: Mapping[str, float] = settings.weights()
        self._items, self._features = Items.load(folder), FeatureSet(folder)
        self._train, self._held_out = np.flatnonzero(~self._items.held_out), np.flatnonzero(self._items.held_out)
        self.num_items = len(self._train)
        if not len(self._held_out):
            self.metric = None

    @property
    def config(self) -> VideoBertConfig:
        """Settings of the checkpoint."""
        return self.module.checkpoint_config

    def groups(self) -> list[Group]:
        return [Group([weight for weight in self.module.parameters() if weight.requires_grad])]

    def outputs(self, items: Tensor) -> tuple[Tensor, ...]:
        """Losses of a shard by objective, and how often each occurs: two of [1, number of objectives]."""
        losses = self._losses(self._train[items.numpy()], int(torch.randint(1 << 62, ())))
        device = self._device
        values = [losses.get(name, torch.zeros((), device=device)) for name in OBJECTIVES]
        present = torch.tensor([[float(name in losses) for name in OBJECTIVES]], device=device)
        return torch.stack(values)[None], present

    def losses(self, outputs: tuple[Tensor, ...], items: Tensor) -> dict[str, Tensor]:
        """Means over the shards in which an objective had something to guess."""
        values, present = outputs
        means = values.sum(dim=0) / present.sum(dim=0).clamp(min=1)
        return {name: mean for name, mean, some in zip(OBJECTIVES, means, present.sum(dim=0), strict=True) if some}

    def validate(self) -> dict[str, float]:
        """Losses on videos that are held out, always with the same masks; the metric is their weighted sum, negated."""
        found: dict[str, list[float]] = {}
        for start in range(0, len(self._held_out), _HELD_OUT_BATCH):
            for name, loss in self._losses(self._held_out[start : start + _HELD_OUT_BATCH], start).items():
                found.setdefault(name, []).append(float(loss))
        means = {name: sum(values) / len(values) for name, values in found.items()}
        total = sum(self.objective_weights.get(name, 1.0) * mean for name, mean in means.items())
        return {**means, "negative_loss": -total if math.isfinite(total) else -math.inf} if means else {}

    def describe(self, item: int) -> str:
        return self._items.names[self._train[item]]

    def _losses(self, rows: np.ndarray, seed: int) -> dict[str, Tensor]:
        batch = FeatureBatch(
            *self._features.batch(rows.tolist()), [" ".join(self._items.texts[row]) or None for row in rows.tolist()]
        )
        generator = torch.Generator().manual_seed(seed)
        losses: dict[str, Tensor] = self.module(batch.to(self._device), generator)
        return losses

    @property
    def _device(self) -> torch.device:
        return self.module.videobert.gate.device
