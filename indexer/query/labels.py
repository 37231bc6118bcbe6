"""Zero-shot labels: how likely each of any list of labels fits a moment, with "none of these" as a possible answer.

Three things speak for or against a label: how far its cosine with the moment stands out from those of everyday
sentences, the ImageNet classes that were seen and mean the same, and those that were seen and mean something else.
docs/design/labels.md says why, and how the constants were fitted.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexer.query.calibration import background_vectors
from model.labels import imagenet_classes, imagenet_labels
from model.pretrained_files import LABELS, verified_path
from model.text_encoder import TextEncoder
from model.weights import model_config

# A class means what a label says from about this cosine of the two texts; a tenth more or less makes it nearly sure.
_SAME_MEANING, _MEANING_WIDTH = 0.6, 0.05
_SMALLEST_STD = 1e-6
_MOMENTS_PER_BATCH = 4096


@dataclass(frozen=True, kw_only=True)
class LabelCalibration:
    """Weights of the logit of "this label fits", against the logit `none + log(number of labels)` of "none does".

    Attributes:
        cosine: of the label's cosine, in standard deviations above the background sentences.
        seen: of the probability of the classes that mean the same.
        elsewhere: of the part of the most probable class that means something else; counts against.
        none: what one label alone has to outweigh.
    """

    cosine: float
    seen: float
    elsewhere: float
    none: float

    def scores(self, evidence: np.ndarray) -> np.ndarray:
        """Softmax of the logits: with one label, the score is the probability that it fits.

        Args:
            evidence: float [N, L, 3]: standing out, seen, seen elsewhere.

        Returns:
            float32 [N, L + 1], the last column for "none of these"; each row adds up to 1.
        """
        logits = evidence @ np.array([self.cosine, self.seen, -self.elsewhere], dtype=np.float32)
        none = np.full((len(logits), 1), self.none + np.log(logits.shape[1]), dtype=np.float32)
        return _softmax(np.hstack([logits, none]))


# Fitted by `python -m benchmarks.fit_labels`. Other models take those of mini: the cosine comes in standard deviations.
_MINI = LabelCalibration(cosine=1.792, seen=1.037, elsewhere=0.572, none=1.817)
CALIBRATIONS = {"mini": _MINI, "mini-zero": LabelCalibration(cosine=0.899, seen=3.666, elsewhere=0.449, none=0.601)}


class LabelScorer:
    """Scores moments against one list of labels.

    Args:
        labels: L labels, checked.
        text_encoder: of the model that made the moments.
        model: preset or checkpoint of that model.
        model_fingerprint: of that model.
    """

    def __init__(self, labels: Sequence[str], text_encoder: Any, model: str, model_fingerprint: str) -> None:
        self._calibration = CALIBRATIONS.get(model, _MINI)
        bare = np.asarray(text_encoder.encode(list(labels)), dtype=np.float32)
        prompt = model_config(model).zero_shot_prompt
        prompted = np.asarray(text_encoder.encode([prompt.format(label=label) for label in labels]), dtype=np.float32)
        self._labels = _unit(bare + prompted)
        self._background = background_vectors(text_encoder, model_fingerprint)
        self._meanings = _meanings(labels, bare, text_encoder)

    @property
    def num_labels(self) -> int:
        return len(self._labels)

    def score(self, embeddings: np.ndarray, seen: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """How likely each label fits each moment, and how likely none does.

        Args:
            embeddings: float32 [N, dim], length 1: fused vectors of moments.
            seen: N entries of `schema.LABELS_TYPE`: the classes seen in each moment, most probable first.

        Returns:
            float32 [N, L + 1], the last column for "none of these"; each row adds up to 1.
        """
        numbers, probabilities = _classes_of(seen)
        scores = np.empty((len(embeddings), len(self._labels) + 1), dtype=np.float32)
        for start in range(0, len(embeddings), _MOMENTS_PER_BATCH):
            part = slice(start, start + _MOMENTS_PER_BATCH)
            scores[part] = self._calibration.scores(
                self._evidence(embeddings[part], numbers[part], probabilities[part])
            )
        return scores

    def evidence(self, embeddings: np.ndarray, seen: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """What `score` weighs: float32 [N, L, 3], see `LabelCalibration.scores`."""
        return self._evidence(embeddings, *_classes_of(seen))

    def _evidence(self, embeddings: np.ndarray, numbers: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        same = np.zeros((len(embeddings), len(self._labels)), dtype=np.float32)
        most = np.zeros((len(embeddings), 1), dtype=np.float32)
        if self._meanings is not None:
            for number, probability in zip(numbers.T, probabilities.T, strict=True):
                same += probability[:, None] * self._meanings[number]
            most = probabilities.max(axis=1, initial=0, keepdims=True)
        return np.stack([self._standing_out(embeddings), same, np.clip(most - same, 0, None)], axis=2)

    def _standing_out(self, embeddings: np.ndarray) -> np.ndarray:
        """Cosines of moments and labels, less the mean and by the deviation of those of the background sentences."""
        usual = embeddings @ self._background.T
        spread = np.maximum(usual.std(axis=1, keepdims=True), _SMALLEST_STD)
        return (embeddings @ self._labels.T - usual.mean(axis=1, keepdims=True)) / spread


def _meanings(labels: Sequence[str], vectors: np.ndarray, text_encoder: Any) -> np.ndarray | None:
    """How far each class means what each label says, 0 to 1: float32 [classes, L]; None for a model without ImageNet.

    A class does if its description comes near the label, or holds all of the label's words: "tabby" is a "cat".
    """
    classes = _class_vectors(text_encoder)
    if classes is None:
        return None
    near = 1 / (1 + np.exp(-(classes @ vectors.T - _SAME_MEANING) / _MEANING_WIDTH))
    wanted = [_words(label) for label in labels]
    says = [[bool(words) and words <= description for words in wanted] for description in _class_words()]
    return np.maximum(near, np.array(says, dtype=np.float32))


def _class_vectors(text_encoder: Any) -> np.ndarray | None:
    """The descriptions of ImageNet's classes in the encoder's joint space, or None where it is not one of ours."""
    if not isinstance(text_encoder, TextEncoder) or text_encoder.config.tokenizer != "wordpiece":
        return None
    sentences = imagenet_labels(verified_path(LABELS)).embeddings.to(text_encoder.device)
    return np.asarray(text_encoder.adapt(sentences).detach().cpu(), dtype=np.float32)


@functools.cache
def _class_words() -> list[frozenset[str]]:
    return [_words(description) for _, description in imagenet_classes()]


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[^\W\d_]+", text.lower())) - {"a", "an", "the", "of", "on"}


def _classes_of(seen: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers int64 [N, K] of the classes seen and their probabilities float32 [N, K]; 0 where there are fewer than K.

    Classes that are none of ImageNet's have no number, and no probability.
    """
    lists = seen.combine_chunks() if isinstance(seen, pa.ChunkedArray) else seen
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    entries = lists.flatten()
    names = pa.array([name for name, _ in imagenet_classes()])
    found = pc.index_in(entries.field("label"), value_set=names).fill_null(-1).to_numpy(zero_copy_only=False)
    scores = entries.field("score").to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers, probabilities = _no_classes(len(lengths), int(lengths.max(initial=0)))
    numbers[rows, columns] = np.maximum(found, 0)
    probabilities[rows, columns] = np.where(found >= 0, scores, 0)
    return numbers, probabilities


def _no_classes(num_moments: int, width: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((num_moments, width), dtype=np.int64), np.zeros((num_moments, width), dtype=np.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALLEST_STD)
