from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ingest.segments import cut_segments, window_of

TIMES = st.lists(st.floats(0, 1e5), max_size=80).map(sorted)
LENGTHS = st.floats(0.02, 3600)


@given(times=TIMES, after_s=st.floats(0, 5000), length_s=LENGTHS)
def test_every_frame_is_in_exactly_one_segment_that_holds_its_time(times, after_s, length_s):
    segments = cut_segments(times, (times[-1] if times else 0.0) + after_s, length_s)

    frames = [index for segment in segments for index in range(*segment.frames.indices(len(times)))]
    assert frames == list(range(len(times)))
    for segment in segments:
        assert all(segment.start_s <= time_s < segment.end_s for time_s in times[segment.frames])
        assert times[segment.frames]


@given(times=TIMES, duration_s=st.floats(0, 2e5), length_s=LENGTHS)
def test_segments_are_windows_of_the_grid_in_order(times, duration_s, length_s):
    segments = cut_segments(times, duration_s, length_s)

    for segment in segments:
        window = round(segment.start_s / length_s)
        assert segment.start_s == window * length_s
        assert segment.start_s < segment.end_s <= (window + 1) * length_s
    for earlier, later in itertools.pairwise(segments):
        assert earlier.end_s <= later.start_s


def test_last_segment_ends_with_the_video():
    segments = cut_segments([0.5, 1.5, 2.5, 3.5], 3.7, 2.0)

    assert [(segment.start_s, segment.end_s, segment.frames) for segment in segments] == [
        (0.0, 2.0, slice(0, 2)),
        (2.0, 3.7, slice(2, 4)),
    ]


def test_window_without_a_frame_is_no_segment():
    assert [segment.start_s for segment in cut_segments([0.5, 9.5], 10.0, 1.0)] == [0.0, 9.0]


def test_frame_on_the_edge_belongs_to_the_later_segment():
    assert [segment.frames for segment in cut_segments([0.0, 10.0], 20.0, 10.0)] == [slice(0, 1), slice(1, 2)]


def test_no_frames_give_no_segments():
    assert cut_segments([], 0.0, 10.0) == []


@pytest.mark.parametrize("times", [[1.0, 0.5], [-0.1]])
def test_times_out_of_order_are_refused(times):
    with pytest.raises(ValueError, match="in order"):
        cut_segments(times, 10.0, 1.0)


@pytest.mark.parametrize("length_s", [0.0, -1.0, float("nan")])
def test_length_that_is_not_above_zero_is_refused(length_s):
    with pytest.raises(ValueError, match="above 0"):
        cut_segments([0.5], 1.0, length_s)


@given(time_s=st.floats(0, 1e6), length_s=LENGTHS)
def test_window_holds_its_time(time_s, length_s):
    window = window_of(time_s, length_s)

    assert window * length_s <= time_s < (window + 1) * length_s
