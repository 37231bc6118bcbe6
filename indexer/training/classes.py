"""Training on classes: a head that tells them apart by the mean of a video's frame features.

Shapes: B items in a batch, N items, C classes, D numbers per token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from indexer.errors import UsageError
from indexer.store.outfile import whole_file
from indexer.training.classes_report import write_report
from indexer.training.dataset import FeatureSet
from indexer.training.items import Items
from indexer.training.metrics import average_precision
from model.classifier import Classifier, save_classifier
from model.objectives import multi_label_loss
from model.training_plan import Group

_MOST_FRAMES = 8
_ITEMS_PER_BATCH = 512
_LEAST_PROBABILITY = 1e-7
_ENOUGH_RIGHT = 20  # right answers, to place a threshold by them
_KEPT_SHARE = 0.95  # of the right answers on held-out items that the threshold lets pass


def class_names(texts: list[list[str]]) -> list[str]:
    """All labels, sorted.

    Raises:
        UsageError: there is only one.
    """
    labels = sorted({label for some in texts for label in some})
    if len(labels) < 2:
        raise UsageError(f"there must be at least two classes to tell apart, got {labels!r}: add items of another")
    return labels


class ClassTask:
    """See `model.training_plan.Task`. Items are those of `items` that are not held out."""

    metric: str | None = "log_likelihood"  # moves where ranks no longer do, and rewards honest probabilities
    objective_weights: Mapping[str, float] = {}

    def __init__(self, folder: Path, *, dropout: float = 0.2) -> None:
        self._items, self._features = Items.load(folder), FeatureSet(folder)
        labels = self._items.labels
        self._truth = np.array([[label in own for label in labels] for own in map(set, self._items.texts)], bool)
        self._train, self._held_out = np.flatnonzero(~self._items.held_out), np.flatnonzero(self._items.held_out)
        self.num_items = len(self._train)
        if not len(self._held_out):
            self.metric = None
        dim = self._features.feature_shape[1]
        self.module = Classifier(labels, dim, multi_label=self._items.several, frames_fingerprint="", dropout=dropout)
        self.module.standardise(torch.cat([self._means(rows) for rows in _batches(self._train)]))

    def groups(self) -> list[Group]:
        return [Group(list(self.module.parameters()))]

    def outputs(self, items: Tensor) -> tuple[Tensor, ...]:
        """Logits [B, C], each item seen by some of its frames."""
        rows = self._train[items.numpy()].tolist()
        batch = self._features.batch(rows, self._features.some_frames(rows, _MOST_FRAMES))
        return (self.module(batch.features.to(self._device), batch.mask.to(self._device)),)

    def losses(self, outputs: tuple[Tensor, ...], items: Tensor) -> dict[str, Tensor]:
        truth = torch.from_numpy(self._truth[self._train[items.numpy()]]).to(self._device)
        if self.module.multi_label:
            return {"classes": multi_label_loss(outputs[0], truth.float())}
        return {"classes": F.cross_entropy(outputs[0], truth.float().argmax(dim=1))}

    def validate(self) -> dict[str, float]:
        """Mean average precision over the classes, mean logarithm of the probability of what is true, in nats, and, of
        items with one class, top-1 accuracy in percent.
        """
        scores, truth = self._predict(self._held_out), self._truth[self._held_out]
        found = [average_precision(scores[:, c], truth[:, c]) for c in range(scores.shape[1]) if truth[:, c].any()]
        likely = np.where(truth, scores, 1 - scores) if self.module.multi_label else scores[truth]
        metrics = {
            "mean_average_precision": float(np.mean(found)) if found else 0.0,
            "log_likelihood": float(np.log(np.maximum(likely, _LEAST_PROBABILITY)).mean()),
        }
        if not self.module.multi_label:
            metrics["top_1"] = 100 * float((scores.argmax(axis=1) == truth.argmax(axis=1)).mean())
        return metrics

    def describe(self, item: int) -> str:
        return self._items.names[self._train[item]]

    def write_result(self, out: Path, metrics_folder: Path, frames_fingerprint: str) -> dict[str, Any]:
        """Calibrates the thresholds, and writes the head and how good it is on the held-out items.

        Raises:
            StorageError: the head cannot be written.
        """
        rows = self._held_out if len(self._held_out) else self._train
        scores, truth = self._predict(rows), self._truth[rows]
        thresholds = best_thresholds(scores, truth) if self.module.multi_label else none_threshold(scores, truth)
        self.module.thresholds.copy_(torch.from_numpy(thresholds))
        self.module.frames_fingerprint = frames_fingerprint
        with whole_file(str(out), "the head", "head.safetensors") as path:
            save_classifier(self.module, path)
        metrics = self.validate() if self.metric else {}
        predicted = scores >= thresholds
        if not self.module.multi_label:
            predicted &= scores == scores.max(axis=1, keepdims=True)
            metrics["none_of_these"] = 100 * float((~predicted.any(axis=1)).mean())
        write_report(metrics_folder, scores, truth, predicted, self._items.labels, metrics, self.module.multi_label)
        return {"metrics": metrics, "classes": len(self._items.labels)}

    def _predict(self, rows: np.ndarray) -> np.ndarray:
        """Probabilities float [N, C] by all frames of each item."""
        parts = [np.zeros((0, len(self._items.labels)), np.float32)]
        for some in _batches(rows):
            batch = self._features.batch(some.tolist())
            parts.append(
                self.module.predict(batch.features.to(self._device), batch.mask.to(self._device)).cpu().numpy()
            )
        return np.concatenate(parts)

    def _means(self, rows: np.ndarray) -> Tensor:
        batch = self._features.batch(rows.tolist())
        return batch.features.mean(dim=2).sum(dim=1) / batch.mask.sum(dim=1, keepdim=True).clamp(min=1)

    @property
    def _device(self) -> torch.device:
        return self.module.mean.device


def none_threshold(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The probability that 95 % of the right answers reach: the same for all classes, float [C].

    With fewer than 20 right answers it is nearer to a blind guess, in proportion, as so few say little of it.
    """
    best = scores.max(axis=1)
    right = best[truth[np.arange(len(truth)), scores.argmax(axis=1)]]
    guess = 1 / scores.shape[1]
    value = float(np.quantile(right, 1 - _KEPT_SHARE, method="lower")) if len(right) else guess
    trust = min(1.0, len(right) / _ENOUGH_RIGHT)
    return np.full(scores.shape[1], guess + trust * max(0.0, value - guess), np.float32)


def best_thresholds(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """For each class, the score with the best F1, float [C]; 0.5 where no item has it."""
    thresholds = np.full(scores.shape[1], 0.5, np.float32)
    for number in np.flatnonzero(truth.any(axis=0)):
        values = np.unique(scores[:, number])
        said = scores[:, number] >= values[:, None]  # [values, items]
        right = (said & truth[:, number]).sum(axis=1)
        f1 = 2 * right / (said.sum(axis=1) + truth[:, number].sum())
        best = int(f1.argmax())
        below = values[best - 1] if best else 0.0
        thresholds[number] = (values[best] + below) / 2  # between the last one taken and the first one left out
    return thresholds


def _batches(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _ITEMS_PER_BATCH] for start in range(0, len(rows), _ITEMS_PER_BATCH)]
