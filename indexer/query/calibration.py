"""How sure to be: does a hit stand out more than the best hits of unrelated queries do in this index?

A cosine alone says little: it depends on the model, on the collection, and on the moment, some of which are near to
whatever is asked. So a fixed list of everyday queries is asked first, from one word to a long sentence. A hit stands
out by its cosine less what the nearest of these queries reach with the same moment. Confidence is the share of them
whose own best hit stands out less, once the part that goes with their length is taken off. As they are asked in the
same index, its size counts by itself. Why so, and what was tried: docs/design/calibration.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_right
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from indexer.store.snapshot import Snapshot

# Share of everyday queries that must do worse before a hit is called a match: the mean of "confidence at 5 %" of
# `python -m benchmarks.calibration`, where 5 % of nonsense and of absent topics are matched.
MATCH_CONFIDENCE = 0.85
# Everyday queries with which a moment is compared, and how many hits of each of them are looked at.
_NEAREST_QUERIES, _HITS = 20, 3
# Moments that are compared with others, and how many of the nearest are looked at for one of another video.
_EXAMPLES, _NEIGHBOURS = 256, 100
_EVERYDAY = Path(__file__).with_name("background_queries.txt")
_SHORT_AND_LONG = Path(__file__).with_name("short_and_long_queries.txt")


_HUNDREDTHS = [number / 100 for number in range(100)]


def percent(share: float) -> str:
    """`97%` of 0.979: never rounded up, so that what is shown reaches a border, as 85 %, just when the value does.

    Never 100 %: no share that was measured on a few hundred queries is certain.
    """
    return ">99%" if share > _HUNDREDTHS[-1] else f"{max(1, bisect_right(_HUNDREDTHS, share)) - 1}%"


class Background(NamedTuple):
    """The everyday queries: vectors float32 [B, dim] of length 1, and how many words each has, int64 [B]."""

    vectors: np.ndarray
    num_words: np.ndarray

    def nearest(self, moments: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For moments float32 [M, dim]: all cosines [B, M]; per moment the mean of those of the nearest queries, and
        the next one after these, both [M].
        """
        cosines = self.vectors @ moments.T
        num = min(_NEAREST_QUERIES, len(cosines) - 1)
        best = -np.partition(-cosines, num, axis=0)[: num + 1]
        best.sort(axis=0)
        return cosines, best[1:].mean(axis=0), best[0]


class Calibration:
    """Turns cosines of one index into confidences.

    Args:
        standing_out: float [B], by how much the best hit of each background query stands out.
        spread: standard deviation of the best cosines of unrelated queries.
        background: what `standing_out` was measured with; None: nothing is taken off a cosine.
    """

    def __init__(self, standing_out: np.ndarray, spread: float, background: Background | None = None) -> None:
        self.spread = spread
        self._background = background
        self._base, self._slope, self._longest = 0.0, 0.0, 0.0
        if background is not None:
            lengths = np.log(background.num_words)
            self._slope, self._base = _line(lengths, standing_out)
            self._longest = float(lengths.max())
            standing_out = standing_out - self._base - self._slope * lengths
        self._usual = np.sort(standing_out)

    @classmethod
    def fit(cls, snapshot: Snapshot, text_encoder: Any, model_fingerprint: str) -> Calibration:
        """Calibrates for a snapshot that is not empty, with the shipped background queries."""
        everyday = background_vectors(text_encoder, model_fingerprint)
        others = background_vectors(text_encoder, model_fingerprint, _SHORT_AND_LONG)
        texts = _lines(_EVERYDAY) + _lines(_SHORT_AND_LONG)
        background = Background(np.vstack([everyday, others]), np.array([_num_words(text) for text in texts]))
        cosines, rows = snapshot.search(background.vectors, _HITS)
        standing_out = _standing_out(snapshot, background, cosines, rows)
        known = np.isfinite(standing_out)  # an approximate index may find nothing
        spread = float(cosines[: len(everyday), 0][known[: len(everyday)]].std())
        kept = Background(background.vectors[known], background.num_words[known])
        return cls(standing_out[known], spread, kept)

    @classmethod
    def fit_to_examples(cls, snapshot: Snapshot) -> Calibration:
        """Calibrates for moments as queries: how like are moments to the nearest of another video?"""
        rows = np.linspace(0, snapshot.num_segments - 1, min(_EXAMPLES, snapshot.num_segments)).astype(np.int64)
        scores, found = snapshot.search(snapshot.vectors_of(rows), _NEIGHBOURS)
        of_video = snapshot.rows.video_rows
        is_other = (of_video[found] != of_video[rows][:, None]) & (found >= 0)
        is_other[:, -1] = True  # all of them lie in the same video: the least like of them
        nearest = scores[np.arange(len(rows)), is_other.argmax(axis=1)]
        return cls(nearest, float(nearest.std()))

    def confidences(self, cosines: np.ndarray, moments: np.ndarray, query: str) -> np.ndarray:
        """How sure to be of some hits of one query: float64 [M], 0 to 1.

        Args:
            cosines: float [M], of query and moments.
            moments: float32 [M, dim], their vectors.
            query: the text; its length counts.
        """
        excess = np.asarray(cosines, dtype=np.float64)
        if self._background is not None:
            length = min(float(np.log(_num_words(query))), self._longest)
            excess = excess - self._background.nearest(moments)[1] - self._base - self._slope * length
        return np.searchsorted(self._usual, excess) / len(self._usual)

    def is_match(self, confidence: float) -> bool:
        """Whether a best hit with this confidence is an answer."""
        return confidence >= MATCH_CONFIDENCE


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and value at 0 of the line that comes nearest to some points."""
    variance = float(x.var())
    slope = float(((x - x.mean()) * y).mean()) / variance if variance else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())


def _standing_out(snapshot: Snapshot, background: Background, cosines: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How much the best hit of each background query stands out: float [B], -inf where nothing was found.

    Args:
        cosines, rows: [B, H], its hits; -1 is none.
    """
    unique, place = np.unique(rows, return_inverse=True)
    place = place.reshape(rows.shape)
    of_all, usual, next_one = background.nearest(snapshot.vectors_of(unique[unique >= 0]))
    place = np.maximum(place - int((unique < 0).any()), 0)
    own = np.take_along_axis(of_all, place, axis=1)
    # A query is not compared with itself: where it is among the nearest, the next one takes its place.
    num = min(_NEAREST_QUERIES, len(of_all) - 1)
    usual = usual[place] - np.maximum(own - next_one[place], 0) / num
    return np.where(rows >= 0, cosines - usual, -np.inf).max(axis=1)


def background_vectors(text_encoder: Any, model_fingerprint: str, texts: Path = _EVERYDAY) -> np.ndarray:
    """Vectors of the background queries; kept in the user's cache folder: encoding them takes most of a second."""
    text = texts.read_text(encoding="utf-8")
    key = hashlib.sha256(f"{model_fingerprint}\n{text}".encode()).hexdigest()[:24]
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videobert" / f"background-{key}.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        vectors = np.asarray(text_encoder.encode(text.splitlines()), dtype=np.float32)
        _save(path, vectors)
        return vectors


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _num_words(text: str) -> int:
    return max(1, len(re.findall(r"\w+", text)))


def _save(path: Path, vectors: np.ndarray) -> None:
    """A cache that cannot be written costs time, not the search."""
    temporary = path.with_name(f"{path.stem}.{os.getpid()}.tmp.npy")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, vectors, allow_pickle=False)
        temporary.rename(path)
    except OSError:
        return
