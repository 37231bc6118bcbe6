"""Confidence intervals: what a figure would be on other videos of the same kind.

Videos are drawn with replacement, with all queries that belong to them, because queries of one video fail together.
Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile interval).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

NUM_DRAWS = 1000
_SEED = 0
_DRAWS_PER_BATCH = 100
_LOW, _HIGH = 0.025, 0.975

# Weights float [D, Q], how often each query counts in each of D draws -> the figure of each draw, float [D].
Statistic = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured figure.

    Attributes:
        value: on the data as they are.
        low, high: the 95 % interval; NaN with a single video.
        chance: what a random order gives; NaN where that says nothing.
    """

    value: float
    low: float
    high: float
    chance: float

    def to_dict(self) -> dict[str, float | None]:
        """JSON knows no NaN: null."""
        return {name: None if np.isnan(value) else round(value, 6) for name, value in asdict(self).items()}


class Bootstrap:
    """Draws of videos, the same for every figure of one set of queries.

    Args:
        videos: int [Q], the video of each query, any numbers.
    """

    def __init__(self, videos: np.ndarray) -> None:
        _, self._group = np.unique(videos, return_inverse=True)
        self._num_groups = int(self._group.max(initial=-1)) + 1

    def figure(self, statistic: Statistic, chance: float = float("nan")) -> Figure:
        """The figure and its interval."""
        value = float(statistic(np.ones((1, len(self._group))))[0])
        if self._num_groups < 2:
            return Figure(value=value, low=float("nan"), high=float("nan"), chance=chance)
        random = np.random.default_rng(_SEED)
        shares = np.full(self._num_groups, 1 / self._num_groups)
        drawn = []
        for _ in range(0, NUM_DRAWS, _DRAWS_PER_BATCH):
            counts = random.multinomial(self._num_groups, shares, size=_DRAWS_PER_BATCH)
            drawn.append(statistic(counts[:, self._group].astype(float)))
        values = np.concatenate(drawn)
        known = values[~np.isnan(values)]
        low, high = np.quantile(known, [_LOW, _HIGH]) if len(known) else (np.nan, np.nan)
        return Figure(value=value, low=float(low), high=float(high), chance=chance)


def mean_of(values: np.ndarray) -> Statistic:
    """The mean of values [Q]; NaN for a draw in which no query counts."""

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights.sum(axis=1)
        return np.divide(weights @ values, total, out=np.full(len(total), np.nan), where=total > 0)

    return statistic


def median_of(values: np.ndarray) -> Statistic:
    """The median of values [Q]: between the two middle ones where their number is even."""
    order = np.argsort(values, kind="stable")
    ordered = values[order].astype(float)

    def statistic(weights: np.ndarray) -> np.ndarray:
        reached = np.cumsum(weights[:, order], axis=1)
        half = reached[:, -1:] / 2
        lower = ordered[(reached >= half).argmax(axis=1)]
        upper = ordered[(reached > half).argmax(axis=1)]
        return (lower + upper) / 2

    return statistic
