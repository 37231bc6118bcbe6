"""Classification by a trained head, of an index's stored frame features or of one video file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from indexer.errors import IndexSettingsError
from indexer.ingest.fuse import STORED
from indexer.query.results import Classification, ClassifiedMoment
from indexer.query.single_video import encode_file
from indexer.query.video_index import VideoIndex
from indexer.query.zero_shot import as_classified, moments_in_order
from indexer.storage import Location
from model.facts import frames_alike, frames_fingerprint

if TYPE_CHECKING:
    from model.classifier import Classifier

_MOMENTS_PER_BATCH = 256


def classify_index(index: VideoIndex, head: str | Path) -> Classification:
    """Scores every moment of an index by a head that `videobert train` wrote, by video and time.

    Raises:
        WeightsNotFoundError, WeightsDamagedError: the head cannot be read.
        IndexSettingsError: it was trained on the features of another model.
    """
    classifier = _load(head)
    snapshot = index.snapshot
    shape = snapshot.config.feature_shape
    made_with = snapshot.config.frames_fingerprint or frames_fingerprint(index.model)
    _require_alike(classifier, head, made_with, f"the index at {str(index.path)!r} has those of model {index.model!r}")
    scores = np.zeros((len(snapshot.rows), len(classifier.labels) + 1), np.float32)
    for rows, table in snapshot.read_file_by_file(["num_frames", "frame_features"]):
        values = table.to_pylist()
        for start in range(0, len(rows), _MOMENTS_PER_BATCH):
            part = slice(start, start + _MOMENTS_PER_BATCH)
            scores[rows[part]] = _scores(classifier, values[part], shape)
    order = moments_in_order(snapshot, None)
    return as_classified(snapshot, classifier.labels, order, scores[order], num_moments=len(order))


def classify_video_by_head(path: str | Location, head: str | Path, model: str) -> list[ClassifiedMoment]:
    """Cuts a video into moments and scores each by a head.

    Raises:
        IndexSettingsError: the head was trained on the features of another model.
        UsageError: there is no such file.
        VideoError: the video cannot be read.
        WeightsNotFoundError, WeightsDamagedError: the head cannot be read.
    """
    classifier = _load(head)
    _require_alike(classifier, head, frames_fingerprint(model), f"--model is {model!r}")
    encoded = encode_file(path, model)
    scores = _scores(classifier, encoded.segments, encoded.model.feature_shape)
    return encoded.classified(classifier.labels, scores)


def _load(head: str | Path) -> Classifier:
    from model.classifier import load_classifier  # loads torch

    return load_classifier(Path(head))


def _require_alike(classifier: Classifier, head: str | Path, frames: str, found: str) -> None:
    if not frames_alike(classifier.frames_fingerprint, frames):
        raise IndexSettingsError(
            f"the head {str(head)!r} was trained on the frame features of another model, and {found}: "
            "use the model that it was trained with, or train a head with this one"
        )


def _scores(classifier: Classifier, moments: Sequence[Mapping[str, Any]], shape: tuple[int, int]) -> np.ndarray:
    """Scores float32 [N, C + 1] of rows with `num_frames` and `frame_features`; without frames it is none of these."""
    import torch

    longest = max((moment["num_frames"] for moment in moments), default=0)
    features = np.zeros((len(moments), max(1, longest), *shape), np.float32)
    mask = np.zeros(features.shape[:2], bool)
    for row, moment in enumerate(moments):
        count = moment["num_frames"]
        features[row, :count] = np.frombuffer(moment["frame_features"], STORED).reshape(count, *shape)
        mask[row, :count] = True
    scores: np.ndarray = classifier.scores(torch.from_numpy(features), torch.from_numpy(mask)).numpy()
    scores[~mask.any(axis=1)] = np.eye(scores.shape[1], dtype=np.float32)[-1]
    return scores
