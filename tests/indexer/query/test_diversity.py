from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import UsageError
from indexer.query.diversity import ALIKE_COSINE, USUAL_PER_VIDEO, Diversity, choose
from indexer.query.moments import Hit, MergedHit


def moment(row, video, score, bonus=0.0):
    hit = Hit(row=row, video_row=video, start_s=10.0 * row, end_s=10.0 * row + 10, score=score, bonus=bonus)
    return MergedHit(best=hit, start_s=hit.start_s, end_s=hit.end_s)


def rows(shown):
    return [one.moment.best.row for one in shown]


def at_angle(cosine):
    """Two vectors with this cosine."""
    return np.array([[1, 0], [cosine, np.sqrt(1 - cosine**2)]], dtype=np.float32)


def test_near_duplicates_are_one_moment_that_counts_the_others():
    moments = [moment(0, 0, 0.9), moment(1, 1, 0.8), moment(2, 2, 0.7)]
    vectors = np.eye(2, dtype=np.float32)[[0, 0, 1]]
    shown, _ = choose(moments, vectors, 10, Diversity())
    assert rows(shown) == [0, 2]
    assert [[alike.best.row for alike in one.alike] for one in shown] == [[1], []]
    every, _ = choose(moments, vectors, 10, Diversity(collapse=False))
    assert rows(every) == [0, 1, 2]


def test_what_only_resembles_stays_apart():
    moments = [moment(0, 0, 0.9), moment(1, 1, 0.8)]
    for cosine, expected in [(ALIKE_COSINE + 0.001, [0]), (ALIKE_COSINE - 0.001, [0, 1])]:
        assert rows(choose(moments, at_angle(cosine), 10, Diversity()).shown) == expected


def test_moments_of_one_picture_stay_apart_where_other_words_were_said():
    moments = [moment(0, 0, 0.9, bonus=0.3), moment(1, 0, 0.6), moment(2, 0, 0.6)]
    shown, _ = choose(moments, np.ones((3, 1), dtype=np.float32), 10, Diversity())
    assert rows(shown) == [0, 1]
    assert len(shown[1].alike) == 1


def test_a_video_gives_way_to_others_and_fills_up_where_there_are_none():
    moments = [moment(i, 0, 0.9 - i / 100) for i in range(8)] + [moment(8, 1, 0.3), moment(9, 2, 0.2)]
    vectors = np.eye(10, dtype=np.float32)
    shown, num_within = choose(moments, vectors, 5, Diversity())
    assert (rows(shown), num_within) == ([0, 1, 2, 8, 9], 5)
    shown, num_within = choose(moments, vectors, 7, Diversity())
    assert (rows(shown), num_within) == ([0, 1, 2, 3, 4, 8, 9], 5)
    shown, _ = choose(moments, vectors, 7, Diversity(per_video=1))
    assert rows(shown) == [0, 8, 9]


@pytest.mark.parametrize("number", [0, -1])
def test_less_than_one_moment_a_video_is_refused(number):
    with pytest.raises(UsageError, match=f"per_video must be at least 1, got {number}"):
        Diversity(per_video=number)


@given(
    raw=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=14),
    k=st.integers(1, 8),
    per_video=st.none() | st.integers(1, 4),
    collapse=st.booleans(),
)
def test_choice_is_as_large_as_it_can_be(raw, k, per_video, collapse):
    moments = [moment(i, video, 1 - i / 100) for i, (video, _) in enumerate(raw)]
    looks = np.eye(6, dtype=np.float32)[[look for _, look in raw]] if raw else np.empty((0, 6), np.float32)
    shown, num_within = choose(moments, looks, k, Diversity(per_video=per_video, collapse=collapse))
    chosen = rows(shown)
    assert chosen == sorted(chosen)
    distinct = {look: i for i, (_, look) in reversed(list(enumerate(raw)))}.values() if collapse else range(len(raw))
    of_video = Counter(raw[i][0] for i in distinct)
    if per_video is None:
        assert len(chosen) == min(k, len(distinct))
        assert num_within <= min(k, sum(min(USUAL_PER_VIDEO, count) for count in of_video.values()))
    else:
        assert len(chosen) == min(k, sum(min(per_video, count) for count in of_video.values()))
        assert max(Counter(raw[i][0] for i in chosen).values(), default=0) <= per_video
    if collapse and len(distinct) <= k and per_video is None:
        assert len(chosen) + sum(len(one.alike) for one in shown) == len(raw)
