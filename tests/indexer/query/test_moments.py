from hypothesis import given
from hypothesis import strategies as st

from indexer.query.moments import Hit, merge_hits


def hit(start_s, end_s, score, video=0):
    return Hit(row=int(start_s), video_row=video, start_s=start_s, end_s=end_s, score=score)


def spans(moments):
    return [(moment.best.video_row, moment.start_s, moment.end_s, moment.best.score) for moment in moments]


def test_overlapping_hits_of_a_video_become_one_moment():
    assert spans(merge_hits([hit(5, 15, 0.9), hit(0, 10, 0.3), hit(40, 50, 0.2)])) == [
        (0, 0, 15, 0.9),
        (0, 40, 50, 0.2),
    ]


def test_neighbours_join_only_if_they_score_nearly_alike():
    assert spans(merge_hits([hit(0, 10, 0.8), hit(10, 20, 0.78), hit(20, 30, 0.3)])) == [
        (0, 0, 20, 0.8),
        (0, 20, 30, 0.3),
    ]


def test_hits_of_different_videos_stay_apart():
    assert len(merge_hits([hit(0, 10, 0.9, video=0), hit(0, 10, 0.9, video=1)])) == 2


def test_a_hit_between_two_moments_joins_them():
    assert spans(merge_hits([hit(0, 10, 0.8), hit(20, 30, 0.79), hit(10, 20, 0.78)])) == [(0, 0, 30, 0.8)]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 20), st.integers(1, 15), st.floats(0.01, 1)),
        min_size=1,
        max_size=12,
    )
)
def test_moments_cover_all_hits_and_do_not_overlap(raw):
    hits = sorted((hit(s, s + n, score, video) for video, s, n, score in raw), key=lambda h: -h.score)
    moments = merge_hits(hits)
    for one in hits:
        covering = [
            m
            for m in moments
            if m.best.video_row == one.video_row and m.start_s <= one.start_s and one.end_s <= m.end_s
        ]
        assert len(covering) == 1
        assert covering[0].best.score >= one.score
    for i, a in enumerate(moments):
        for b in moments[i + 1 :]:
            assert a.best.video_row != b.best.video_row or a.end_s <= b.start_s or b.end_s <= a.start_s
    assert [m.best.score for m in moments] == sorted((m.best.score for m in moments), reverse=True)
