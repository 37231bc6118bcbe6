import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.evaluate.metrics import (
    average_precision,
    chance_median_rank,
    chance_of_rank,
    chance_reciprocal_rank,
    overlap,
    rank_of_span,
    ranks_of_right,
)

SCORES = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=8)


def test_ranks_are_those_of_a_list_ranked_by_hand():
    scores = np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.4], [0.5, 0.1, 0.3]])
    right = np.array([[True, False, False], [True, False, False], [False, True, True]])
    assert ranks_of_right(scores, right).tolist() == [1, 3, 2]


def test_rank_counts_a_tie_against():
    assert ranks_of_right(np.array([[0.5, 0.5, 0.5]]), np.array([[False, True, False]])).tolist() == [3]


def test_rank_of_several_right_ones_ignores_ties_among_them():
    assert ranks_of_right(np.array([[0.5, 0.5, 0.1]]), np.array([[True, True, False]])).tolist() == [1]


def test_rank_is_behind_all_without_a_right_candidate_or_a_score():
    scores = np.array([[0.1, 0.2], [np.nan, 0.2]])
    assert ranks_of_right(scores, np.array([[False, False], [True, False]])).tolist() == [3, 2]


@given(SCORES, st.data())
def test_rank_is_the_worst_place_that_any_order_of_ties_gives(scores, data):
    right = data.draw(st.integers(0, len(scores) - 1))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i == right))
    is_right = np.arange(len(scores)) == right
    assert ranks_of_right(np.array([scores]), is_right[None]).tolist() == [order.index(right) + 1]


@pytest.mark.parametrize(("num_candidates", "num_right"), [(5, 1), (5, 2), (4, 4), (6, 3)])
def test_chance_is_the_mean_over_all_orders(num_candidates, num_right):
    ranks = [
        1 + min(order.index(i) for i in range(num_right)) for order in itertools.permutations(range(num_candidates))
    ]
    count = np.array([num_right])
    for k in (1, 2, 5, 10):
        assert chance_of_rank(num_candidates, count, k)[0] == pytest.approx(np.mean([rank <= k for rank in ranks]))
    assert chance_reciprocal_rank(num_candidates, count)[0] == pytest.approx(np.mean([1 / rank for rank in ranks]))
    half = next(k for k in range(1, 9) if np.mean([rank <= k for rank in ranks]) >= 0.5)
    assert chance_median_rank(num_candidates, count) == half


def test_overlap_is_intersection_over_union():
    assert overlap((0, 10), (5, 15)) == pytest.approx(5 / 15)
    assert overlap((0, 10), (10, 20)) == 0
    assert overlap((2, 4), (2, 4)) == 1


def test_rank_of_span_is_the_first_of_the_right_video_that_overlaps_enough():
    found = [("b", 0, 10), ("a", 20, 30), ("a", 0, 10), ("a", 0, 6)]
    assert rank_of_span(found, "a", [(0, 5)], 0.3) == 3
    assert rank_of_span(found, "a", [(0, 5)], 0.7) == 4
    assert rank_of_span(found, "a", [(50, 60), (22, 30)], 0.7) == 2
    assert rank_of_span(found, "c", [(0, 10)], 0.3) == 5


def test_average_precision_is_that_of_a_list_ranked_by_hand():
    scores, truth = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(scores, truth)[0] == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_average_precision_counts_a_tie_against():
    assert average_precision(np.array([0.5, 0.5]), np.array([True, False]))[0] == 0.5


def test_average_precision_without_a_true_item_is_undefined():
    assert math.isnan(average_precision(np.array([0.5]), np.array([False]))[0])


@given(SCORES, st.data())
def test_weighted_average_precision_is_that_of_repeated_items(scores, data):
    truth = data.draw(st.lists(st.booleans(), min_size=len(scores), max_size=len(scores)))
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(scores), max_size=len(scores)))
    weighted = average_precision(np.array(scores), np.array(truth), np.array([counts], dtype=float))
    repeated = average_precision(np.repeat(scores, counts), np.repeat(truth, counts).astype(bool))
    np.testing.assert_allclose(weighted, repeated)
