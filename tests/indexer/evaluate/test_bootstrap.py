import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.evaluate.bootstrap import Bootstrap, mean_of, median_of


def test_interval_of_a_mean_is_near_the_normal_one():
    hits = np.random.default_rng(1).random(400) < 0.3
    figure = Bootstrap(np.arange(400)).figure(mean_of(hits))
    spread = 1.96 * math.sqrt(hits.mean() * (1 - hits.mean()) / 400)
    assert figure.value == hits.mean()
    assert figure.low == pytest.approx(hits.mean() - spread, abs=0.01)
    assert figure.high == pytest.approx(hits.mean() + spread, abs=0.01)


def test_interval_is_wider_when_queries_of_one_video_fail_together():
    hits = np.repeat(np.random.default_rng(1).random(40) < 0.5, 10)
    alone = Bootstrap(np.arange(400)).figure(mean_of(hits))
    together = Bootstrap(np.repeat(np.arange(40), 10)).figure(mean_of(hits))
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_interval_is_the_same_every_time():
    values = np.arange(10.0)
    assert Bootstrap(np.arange(10)).figure(median_of(values)) == Bootstrap(np.arange(10)).figure(median_of(values))


def test_a_single_video_has_no_interval():
    figure = Bootstrap(np.array([7, 7])).figure(mean_of(np.array([0.0, 1.0])), chance=0.1)
    assert (figure.value, figure.chance) == (0.5, 0.1)
    assert math.isnan(figure.low)
    assert figure.to_dict() == {"value": 0.5, "low": None, "high": None, "chance": 0.1}


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=8))
def test_weighted_mean_and_median_are_those_of_repeated_values(pairs):
    values, counts = (np.array(column) for column in zip(*pairs, strict=True))
    if not counts.sum():
        return
    weights = counts[None].astype(float)
    assert mean_of(values)(weights)[0] == pytest.approx(np.mean(np.repeat(values, counts)))
    assert median_of(values)(weights)[0] == np.median(np.repeat(values, counts))
