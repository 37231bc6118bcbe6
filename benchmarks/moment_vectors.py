"""Made-up vectors of moments and of text queries that lie as those of a real collection do.

Moments come in videos, videos in topics, and topics differ in size. Compared with 7,086 photographs of Flickr8k and
their captions in the space of the mini model (in brackets: the same number of vectors from here):

    share of variance in the 1st, 2nd, 5th, 10th, 20th direction    0.18 0.11 0.06 0.03 0.01  (0.18 0.10 0.06 0.03 0.01)
    cosine of the 1st, 10th, 100th neighbour of a picture           0.88 0.81 0.67            (0.90 0.83 0.66)
    cosine of the 1st, 10th, 100th picture for a text               0.72 0.64 0.52            (0.67 0.59 0.48)
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MOMENTS_PER_VIDEO = 12
_VIDEOS_PER_TOPIC = 60
# Variance in direction i is proportional to exp(-i / _DECAY) + _FLOOR.
_DECAY, _FLOOR = 15.0, 2e-4
# Squared length of the mean of all moments, and of all texts.
_MEAN, _TEXT_MEAN = 0.09, 0.08
# Of the rest of a moment, what its topic, its video and the moment itself decide.
_TOPIC, _VIDEO, _MOMENT = 0.5, 0.35, 0.15
# Of a text, what it says of a video; the remainder is its own. One in five is about nothing in the collection.
_TEXT_MEANING, _STRANGERS = 0.5, 5


class Collection:
    """A collection of moments, made in parts.

    Args:
        num_moments: how many there are.
        dim: length of a vector.
        seed: another one, another collection.
    """

    def __init__(self, num_moments: int, dim: int = 384, seed: int = 0) -> None:
        self.num_moments = num_moments
        self._dim, self._seed = dim, seed
        random = np.random.default_rng(seed)
        axes, _ = np.linalg.qr(random.standard_normal((dim, dim)))
        variance = np.exp(-np.arange(dim) / _DECAY) + _FLOOR
        self._axes = (axes * np.sqrt(variance / variance.sum())[:, None]).astype(np.float32)
        self._means = _unit(self._spread(2, random))
        num_videos = num_moments // MOMENTS_PER_VIDEO + 1
        num_topics = max(1, num_videos // _VIDEOS_PER_TOPIC)
        topics = self._spread(num_topics, random)
        topic_of = (num_topics * random.random(num_videos) ** 2).astype(np.int64)
        self._videos = np.sqrt(_TOPIC) * topics[topic_of] + np.sqrt(_VIDEO) * self._spread(num_videos, random)

    def parts(self, size: int) -> Iterator[np.ndarray]:
        """All moments, video after video: float32 [<= size, dim], length 1."""
        for start in range(0, self.num_moments, size):
            numbers = np.arange(start, min(start + size, self.num_moments))
            random = np.random.default_rng([self._seed, start])
            own = np.sqrt(_MOMENT) * self._spread(len(numbers), random)
            vectors = self._videos[numbers // MOMENTS_PER_VIDEO] + own
            yield _unit(np.sqrt(1 - _MEAN) * vectors + np.sqrt(_MEAN) * self._means[0])

    def texts(self, num: int, seed: int) -> np.ndarray:
        """Texts: float32 [num, dim], length 1."""
        random = np.random.default_rng([self._seed, 1, seed])
        meaning = self._videos[random.integers(0, len(self._videos), num)]
        meaning[::_STRANGERS] = self._spread(len(meaning[::_STRANGERS]), random)
        own = self._spread(num, random)
        shares = np.sqrt([_TEXT_MEANING, 1 - _TEXT_MEANING - _TEXT_MEAN, _TEXT_MEAN]).astype(np.float32)
        return _unit(shares[0] * _unit(meaning) + shares[1] * _unit(own) + shares[2] * self._means[1])

    def _spread(self, num: int, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((num, self._dim), dtype=np.float32) @ self._axes


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
