"""A trained classification head in one small safetensors file: from stored frame features to classes of one's own.

Shapes: B videos (or moments), T frames of the longest, K tokens per frame, D numbers per token, C classes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.conse import mean_over_frames
from model.errors import InputError, WeightsDamagedError, WeightsNotFoundError
from model.heads import ClassificationHead
from model.safetensors_file import write_safetensors

FORMAT = "videobert-head-1"
NONE_OF_THESE = "none of these"
_SMALLEST_STD = 1e-3  # of a feature that hardly varies


class Classifier(nn.Module):
    """A `ClassificationHead` on standardised mean frame features, with what is needed to use it on other videos.

    Attributes:
        labels: the C class names.
        multi_label: a video may have several.
        thresholds: float [C]; from which probability on a class counts. Where a video has exactly one class they are
            all the same: a video whose best class stays below it is none of these.
        frames_fingerprint: of what makes the features that it takes, see `model.facts.frames_fingerprint`.
    """

    mean: Tensor
    std: Tensor
    thresholds: Tensor

    def __init__(
        self,
        labels: Sequence[str],
        feature_dim: int,
        *,
        multi_label: bool,
        frames_fingerprint: str,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.labels = list(labels)
        self.multi_label = multi_label
        self.frames_fingerprint = frames_fingerprint
        self.head = ClassificationHead(feature_dim, len(self.labels), multi_label=multi_label, dropout=dropout)
        nn.init.zeros_(self.head.output.weight)
        nn.init.zeros_(self.head.output.bias)
        self.register_buffer("mean", torch.zeros(feature_dim))
        self.register_buffer("std", torch.ones(feature_dim))
        self.register_buffer("thresholds", torch.full((len(self.labels),), 0.5 if multi_label else 0.0))

    def standardise(self, means: Tensor) -> None:
        """Take mean and spread of the inputs from the videos to train on: float [N, D]."""
        self.mean.copy_(means.mean(dim=0))
        self.std.copy_(means.std(dim=0, correction=0).clamp(min=_SMALLEST_STD))

    def forward(self, features: Tensor, frame_mask: Tensor) -> Tensor:
        """Features float [B, T, K, D] and mask bool [B, T] -> logits [B, C]."""
        means = mean_over_frames(features.mean(dim=2), frame_mask)
        logits: Tensor = self.head((means - self.mean) / self.std)
        return logits

    def predict(self, features: Tensor, frame_mask: Tensor) -> Tensor:
        """Probability of each class: float [B, C].

        Raises:
            InputError: the features have another number of dimensions than those it was trained on.
        """
        if features.ndim != 4 or features.shape[3] != len(self.mean):
            raise InputError(f"features must be [B, T, K, {len(self.mean)}], got {list(features.shape)}")
        with torch.no_grad():
            logits = self.eval()(features.float(), frame_mask)
        return logits.sigmoid() if self.multi_label else logits.softmax(dim=1)

    def scores(self, features: Tensor, frame_mask: Tensor) -> Tensor:
        """Scores of the classes and, last, of none of these: float [B, C + 1], each 0 to 1.

        Where a video has exactly one class, "none" is one more class that always weighs as much as the threshold, and
        all are scaled to add up to 1: it comes first exactly if no class reaches the threshold. Where it may have
        several, scores are moved so that 0.5 is each class's threshold, and "none" is what the best leaves to 1.
        """
        probabilities = self.predict(features, frame_mask)
        if not self.multi_label:
            weights = torch.cat([probabilities, self.thresholds[:1].expand(len(probabilities), 1)], dim=1)
            return weights / weights.sum(dim=1, keepdim=True)
        moved = (probabilities.logit(eps=1e-6) - self.thresholds.logit(eps=1e-6)).sigmoid()
        return torch.cat([moved, 1 - moved.amax(dim=1, keepdim=True)], dim=1)


def save_classifier(classifier: Classifier, path: Path) -> None:
    """Write it to a .safetensors file."""
    facts = {
        "format": FORMAT,
        "labels": json.dumps(classifier.labels, ensure_ascii=False),
        "multi_label": json.dumps(classifier.multi_label),
        "frames_fingerprint": classifier.frames_fingerprint,
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in classifier.state_dict().items()}
    write_safetensors(tensors, path, facts)


def load_classifier(path: Path) -> Classifier:
    """Read what `save_classifier` wrote.

    Raises:
        WeightsNotFoundError: there is no such file.
        WeightsDamagedError: it is cut short, or no head of this format.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise WeightsNotFoundError(f"there is no head {str(path)!r}; make one with `videobert train FOLDER --out FILE`")
    try:
        with safe_open(path, framework="pt") as file:
            facts: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if facts.get("format") != FORMAT:
            found = facts.get("format")
            raise WeightsDamagedError(
                f"{str(path)!r} is no classification head: its format must be {FORMAT!r}, got {found!r}"
            )
        classifier = Classifier(
            json.loads(facts["labels"]),
            len(tensors["mean"]),
            multi_label=json.loads(facts["multi_label"]),
            frames_fingerprint=facts["frames_fingerprint"],
        )
        classifier.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise WeightsDamagedError(
            f"the head {str(path)!r} cannot be read ({reason}): copy or train it again"
        ) from error
    return classifier.eval()
