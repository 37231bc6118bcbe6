"""Classification of one video file, without an index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from indexer import schema
from indexer.config import SamplingConfig
from indexer.errors import UsageError, VideoError
from indexer.ingest.encode import VideoEncoder
from indexer.ingest.files import MissingFile, look_at
from indexer.ingest.guard import GuardedDecoder
from indexer.query.inputs import check_labels
from indexer.query.labels import LabelScorer
from indexer.query.results import ClassifiedMoment
from indexer.storage import Location, location
from model.cores import num_usable_cores
from model.video_text_model import VideoTextModel
from model.weights import load_model


def classify_video(
    path: str | Location, labels: Sequence[str], model: str, sampling: SamplingConfig | None = None
) -> list[ClassifiedMoment]:
    """Cuts a video into moments and scores each against the labels.

    Args:
        path: the file.
        labels: free text, for example "cooking".
        model: preset or checkpoint.
        sampling: which frames, and how long a moment is.

    Raises:
        UsageError: there is no such file, or no label.
        VideoError: the video cannot be read.
    """
    names = check_labels(labels)
    encoded = encode_file(path, model, sampling)
    embeddings = np.stack([segment["embedding"] for segment in encoded.segments]).astype(np.float32)
    seen = pa.array([segment["labels"] for segment in encoded.segments], type=schema.LABELS_TYPE)
    loaded = encoded.model
    scores = LabelScorer(names, loaded.text_encoder, model, loaded.fingerprint).score(embeddings, seen)
    return encoded.classified(names, scores)


class EncodedFile(NamedTuple):
    """A video file's URI, its moments as rows of `schema.SEGMENTS`, and the model that encoded it."""

    uri: str
    segments: list[dict[str, Any]]
    model: VideoTextModel

    def classified(self, labels: Sequence[str], scores: np.ndarray) -> list[ClassifiedMoment]:
        """Scores float32 [N, L + 1] of the moments as they are returned."""
        return [
            ClassifiedMoment.of(
                labels,
                row,
                video=self.uri,
                start_s=segment["start_s"],
                end_s=segment["end_s"],
                segment_id=segment["segment_id"],
            )
            for segment, row in zip(self.segments, scores, strict=True)
        ]


def encode_file(path: str | Location, model: str, sampling: SamplingConfig | None = None) -> EncodedFile:
    """Cuts a video into moments and encodes them; arguments and errors as `classify_video`."""
    file = look_at(str(location(path).absolute()))
    if isinstance(file, MissingFile):
        raise UsageError(f"cannot read {str(path)!r}: {file.reason}")
    loaded = load_model(model, num_threads=num_usable_cores())
    with GuardedDecoder() as decoder:
        encoded = VideoEncoder(loaded, decoder, sampling or SamplingConfig()).encode(file, batch_id="")
    if not encoded.segments:
        row = encoded.video
        raise VideoError(row["error_stage"], row["error_kind"], f"{file.uri!r}: {row['error_message']}")
    return EncodedFile(file.uri, encoded.segments, loaded)


def encode_example(path: str | Location, model: str, sampling: SamplingConfig) -> np.ndarray:
    """A video or image as one vector float32 [dim], length 1: the mean of its moments; errors as `classify_video`."""
    vectors = np.stack([segment["embedding"] for segment in encode_file(path, model, sampling).segments])
    mean = vectors.astype(np.float32).mean(axis=0)
    return mean / np.linalg.norm(mean)
