"""Classification of one video file, without an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from indexer.config import SamplingConfig
from indexer.errors import UsageError, VideoError
from indexer.ingest.encode import VideoEncoder
from indexer.ingest.guard import GuardedDecoder
from indexer.ingest.sources import MissingFile, look_at
from indexer.query.inputs import check_labels
from indexer.query.results import ClassifiedMoment, Label
from model.weights import load_model


def classify_video(
    path: str | Path, labels: Sequence[str], model: str, sampling: SamplingConfig | None = None
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
    file = look_at(str(Path(path).absolute()))
    if isinstance(file, MissingFile):
        raise UsageError(f"cannot classify {str(path)!r}: {file.reason}")
    loaded = load_model(model, num_threads=len(os.sched_getaffinity(0)))
    with GuardedDecoder() as decoder:
        encoded = VideoEncoder(loaded, decoder, sampling or SamplingConfig()).encode(file, batch_id="")
    if not encoded.segments:
        row = encoded.video
        raise VideoError(row["error_stage"], row["error_kind"], f"{file.uri!r}: {row['error_message']}")
    embeddings = np.stack([segment["embedding"] for segment in encoded.segments])
    scores = loaded.zero_shot(embeddings, names).cpu().numpy()
    return [
        ClassifiedMoment(
            video=file.uri,
            start_s=segment["start_s"],
            end_s=segment["end_s"],
            labels=[Label(label=names[j], score=float(row[j])) for j in np.argsort(-row, kind="stable")],
            segment_id=segment["segment_id"],
        )
        for segment, row in zip(encoded.segments, scores, strict=True)
    ]
