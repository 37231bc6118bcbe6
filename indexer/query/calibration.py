"""How sure to be: does a hit score better than the best hits of unrelated queries do in this index?

A cosine alone says little: it depends on the model and on the collection. So it is compared with the best scores that a
fixed list of everyday sentences reaches in the same index, most of which have nothing to do with any one collection.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from indexer.store.snapshot import Snapshot

# Share of everyday sentences that must do worse before a hit is called a match. Measured on 45 captioned clips with the
# mini model: 60 % of the captions are matched, 24 % of them still are when their own clip is taken away, and of 15
# nonsense or foreign topics none. At 0.9 it is 44 %, 13 % and none, but then short queries ("a cat") are missed.
MATCH_CONFIDENCE = 0.8
# Moments that are compared with others, and how many of the nearest are looked at for one of another video.
_EXAMPLES, _NEIGHBOURS = 256, 100
_BACKGROUND = Path(__file__).with_name("background_queries.txt")


class Calibration:
    """Turns scores of one index into confidences.

    Args:
        background_scores: float [B], the best score that each unrelated query reaches in the index.
    """

    def __init__(self, background_scores: np.ndarray) -> None:
        self._background = np.sort(background_scores)

    @classmethod
    def fit(cls, snapshot: Snapshot, text_encoder: Any, model_fingerprint: str) -> Calibration:
        """Calibrates for a snapshot that is not empty, with the shipped background queries."""
        scores, _ = snapshot.search(background_vectors(text_encoder, model_fingerprint), 1)
        return cls(scores[:, 0])

    @classmethod
    def fit_to_examples(cls, snapshot: Snapshot) -> Calibration:
        """Calibrates for moments as queries: how like are moments to the nearest of another video?"""
        rows = np.linspace(0, snapshot.num_segments - 1, min(_EXAMPLES, snapshot.num_segments)).astype(np.int64)
        scores, found = snapshot.search(snapshot.vectors_of(rows), _NEIGHBOURS)
        of_video = snapshot.rows.video_rows
        is_other = (of_video[found] != of_video[rows][:, None]) & (found >= 0)
        is_other[:, -1] = True  # all of them lie in the same video: the least like of them
        return cls(scores[np.arange(len(rows)), is_other.argmax(axis=1)])

    @property
    def spread(self) -> float:
        """Standard deviation of the background scores."""
        return float(self._background.std())

    def confidence(self, score: float) -> float:
        """Share of background queries whose best hit scores less, 0 to 1."""
        return float(np.searchsorted(self._background, score) / len(self._background))

    def is_match(self, confidence: float) -> bool:
        """Whether a best hit with this confidence is an answer."""
        return confidence >= MATCH_CONFIDENCE


def background_vectors(text_encoder: Any, model_fingerprint: str) -> np.ndarray:
    """Vectors of the background queries; kept in the user's cache folder: encoding them takes most of a second."""
    text = _BACKGROUND.read_text(encoding="utf-8")
    key = hashlib.sha256(f"{model_fingerprint}\n{text}".encode()).hexdigest()[:24]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videobert" / f"background-{key}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        vectors = np.asarray(text_encoder.encode(text.splitlines()), dtype=np.float32)
        _save(path, vectors)
        return vectors


def _save(path: Path, vectors: np.ndarray) -> None:
    """A cache that cannot be written costs time, not the search."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, vectors, allow_pickle=False)
        temporary.rename(path)
    except OSError:
        return
