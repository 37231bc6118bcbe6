"""How sure to be: does the best hit of a query stand out more than the best hits of unrelated queries do?

A cosine alone says little: it depends on the wording of the query and on the collection. So the best score is first
put in units of the query's own spread over the collection (a z-score), and that is compared with the same figure of a
fixed list of everyday sentences, most of which have nothing to do with any one collection.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from indexer.store.snapshot import Snapshot

# The spread of a query is measured on at most so many moments, drawn evenly.
_SAMPLE_SIZE = 2048
# Share of unrelated queries that must stand out less before a hit is called a match: 5 % false alarms.
MATCH_CONFIDENCE = 0.95
_BACKGROUND = Path(__file__).with_name("background_queries.txt")


class Calibration:
    """Turns scores of one index into confidences.

    Args:
        sample: float32 [S, dim], vectors of some moments.
        background: float32 [B, dim], vectors of unrelated queries.
    """

    def __init__(self, sample: np.ndarray, background: np.ndarray) -> None:
        self._sample = sample
        scores = background @ sample.T
        self._background = np.sort(self._z(background, scores.max(axis=1)))

    @classmethod
    def fit(cls, snapshot: Snapshot, text_encoder: Any, model_fingerprint: str) -> Calibration:
        """Calibrates for a snapshot, with the shipped background queries."""
        step = max(1, snapshot.num_segments // _SAMPLE_SIZE)
        rows = np.arange(0, snapshot.num_segments, step)
        return cls(snapshot.embeddings(rows), _background_vectors(text_encoder, model_fingerprint))

    def confidences(self, queries: np.ndarray, scores: Sequence[Sequence[float]]) -> list[list[float]]:
        """Share of background queries whose best hit stands out less, for each score of each query.

        Args:
            queries: float32 [Q, dim].
            scores: for each query the scores of its hits.

        Returns:
            For each query a list as long as its scores, 0 to 1.
        """
        result = []
        for query, values in zip(queries, scores, strict=True):
            z = self._z(query[None], np.asarray(values, dtype=np.float32)[None])[0]
            result.append((np.searchsorted(self._background, z) / len(self._background)).tolist())
        return result

    def is_match(self, confidence: float) -> bool:
        """Whether a best hit with this confidence is an answer."""
        return confidence >= MATCH_CONFIDENCE

    def _z(self, queries: np.ndarray, values: np.ndarray) -> np.ndarray:
        scores = queries @ self._sample.T
        mean, spread = scores.mean(axis=1), scores.std(axis=1) + 1e-6
        if values.ndim == 2:
            mean, spread = mean[:, None], spread[:, None]
        return (values - mean) / spread


def _background_vectors(text_encoder: Any, model_fingerprint: str) -> np.ndarray:
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
