from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ingest.timeline import (
    MAX_HOLD_S,
    SamplingGrid,
    Timed,
    Timeline,
    TimestampGuess,
    plausible_period_s,
    shown_spans,
)

RATES = st.sampled_from([0.01, 0.1, 1 / 3, 0.5, 1.0, 2.0, 29.97, 60.0])
TIMES = st.lists(st.floats(0, 500), min_size=1, max_size=60)


def released(times_s, period_s=0.04):
    """What comes out of a timeline for these timestamps: [(time, index of the frame)]."""
    timeline = Timeline()
    out = [timed for i, time_s in enumerate(times_s) for timed in timeline.push(time_s, period_s, i)]
    out += timeline.finish()
    return [(timed.time_s, timed.frame) for timed in out], timeline


@given(times=TIMES, rate_hz=RATES)
def test_every_target_falls_in_exactly_the_span_that_holds_it(times, rate_hz):
    edges = sorted({0.0, *times})
    grid = SamplingGrid(rate_hz)

    found = [(start, end, target) for start, end in itertools.pairwise(edges) for target in grid.within(start, end)]

    assert all(start <= target < end for start, end, target in found)
    targets = itertools.takewhile(lambda t: t < edges[-1], ((k + 0.5) / rate_hz for k in itertools.count()))
    assert [target for _, _, target in found] == list(targets)


@given(times=TIMES, rate_hz=RATES)
def test_targets_in_gaps_between_spans_are_passed_over(times, rate_hz):
    edges = sorted({0.0, *times})
    grid = SamplingGrid(rate_hz)

    for start, end in list(itertools.pairwise(edges))[::2]:
        assert all(start <= target < end for target in grid.within(start, end))


@given(st.lists(st.one_of(st.none(), st.floats(-100, 1e6)), max_size=60))
def test_times_never_decrease_and_are_never_negative_whatever_the_file_says(times):
    out, _ = released(times)

    out_times = [time_s for time_s, _ in out]
    assert out_times == sorted(out_times)
    assert all(time_s >= 0 for time_s in out_times)
    assert len({frame for _, frame in out}) == len(out)


@given(st.integers(1, 60), st.data())
def test_frames_in_order_come_out_as_they_went_in(num_frames, data):
    times = [i * 0.04 for i in range(num_frames)]

    out, timeline = released(times)

    assert out == list(zip(times, range(num_frames), strict=True))
    assert timeline.describe() is None


def test_neighbours_in_the_wrong_order_are_sorted():
    out, _ = released([0.0, 0.04, 0.12, 0.08, 0.16])

    assert [frame for _, frame in out] == [0, 1, 3, 2, 4]


def test_frame_without_a_timestamp_follows_the_one_before():
    out, _ = released([None, None, 1.0, None])

    assert [time_s for time_s, _ in out] == pytest.approx([0.0, 0.04, 1.0, 1.04])


def test_single_frame_far_ahead_is_dropped():
    out, timeline = released([0.0, 0.04, 36_000.0, 0.12, 0.16])

    assert out == [(0.0, 0), (0.04, 1), (0.12, 3), (0.16, 4)]
    assert timeline.num_dropped == 1


def test_timeline_that_starts_again_goes_on_from_where_it_was():
    times = [i * 0.04 for i in range(100)]

    out, timeline = released(times + times)

    assert [time_s for time_s, _ in out] == pytest.approx([i * 0.04 for i in range(200)])
    assert timeline.num_restarts == 1
    assert timeline.describe() == "the timestamps start again 1 time"


def test_frame_that_comes_too_late_is_dropped():
    out, timeline = released([0.0, 0.2, 0.4, 0.6, 0.1, 0.8])

    assert [frame for _, frame in out] == [0, 1, 2, 3, 5]
    assert timeline.num_dropped == 1


def timed(*times_s):
    return [Timed(time_s=time_s, period_s=0.04, frame=i) for i, time_s in enumerate(times_s)]


def test_frame_is_shown_until_the_next_and_the_last_for_its_period():
    assert [(frame.frame, end) for frame, end in shown_spans(timed(0.0, 0.5, 2.0))] == [(0, 0.5), (1, 2.0), (2, 2.04)]


def test_frame_is_not_held_longer_than_the_limit():
    assert next(shown_spans(timed(1.0, 9999.0)))[1] == 1.0 + MAX_HOLD_S


def test_no_frames_have_no_spans():
    assert list(shown_spans([])) == []


def test_dts_is_used_where_pts_is_missing_or_goes_backwards_more_often():
    guess = TimestampGuess()

    assert [guess.choose(None, 1), guess.choose(None, 2)] == [1, 2]
    assert guess.choose(7, 3) == 7
    assert guess.choose(5, 4) == 4
    assert guess.choose(None, None) is None


@pytest.mark.parametrize("rate", [None, 0.0, -1.0, 90_000.0, float("nan"), float("inf")])
def test_implausible_rate_gives_the_fallback_period(rate):
    assert plausible_period_s(rate) == 0.04


def test_plausible_rate_gives_its_period():
    assert plausible_period_s(50.0) == 0.02
