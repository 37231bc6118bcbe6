"""The bounds of moments, whatever was fetched, are those of merging all segments of their videos."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from indexer.query.moments import Hit, merge_hits
from indexer.query.neighbours import missing_neighbours


def rows_of(videos):
    """Segments of 10 s that follow each other: what is needed of `SegmentRows`. They are stored in another order."""
    order = np.random.default_rng(0).permutation(sum(len(scores) for scores in videos))
    video_rows = np.repeat(np.arange(len(videos)), [len(scores) for scores in videos])[order]
    start_s = np.concatenate([10.0 * np.arange(len(scores)) for scores in videos])[order]
    in_order = np.lexsort((start_s, video_rows))

    class Rows(SimpleNamespace):
        def __len__(self):
            return len(self.start_s)

    return Rows(video_rows=video_rows, start_s=start_s, in_order=in_order, places=np.argsort(in_order))


def hits_of(videos, rows):
    scores = np.concatenate([np.array(scores) for scores in videos])
    return {
        int(row): Hit(
            row=int(row),
            video_row=int(rows.video_rows[row]),
            start_s=float(rows.start_s[row]),
            end_s=float(rows.start_s[row]) + 10,
            score=float(scores[place]),
        )
        for place, row in enumerate(rows.in_order)
    }


def spans(moments):
    return [(moment.best.video_row, moment.start_s, moment.end_s) for moment in moments]


def completed(videos, num_fetched):
    """Moments from the best hits alone, and what remains to be asked for."""
    rows = rows_of(videos)
    hits = hits_of(videos, rows)
    fetched = sorted(hits.values(), key=lambda hit: -hit.score)[:num_fetched]
    asked = []

    def score(wanted):
        asked.extend(wanted.tolist())
        return [hits[row] for row in wanted.tolist()]

    more = missing_neighbours(merge_hits(fetched), fetched, rows, score)
    assert len(asked) == len(set(asked))
    return merge_hits(sorted([*fetched, *more], key=lambda hit: -hit.score)), asked


def test_a_scene_is_found_whole_from_its_best_segment():
    moments, asked = completed([[0.5, 0.95, 0.97, 1.0, 0.99, 0.92, 0.91, 0.2, 0.99]], 1)
    assert spans(moments) == [(0, 10.0, 70.0)]
    assert len(asked) <= 8


def test_a_picture_that_never_changes_is_one_moment():
    moments, asked = completed([[0.7] * 300, [0.1] * 5], 3)
    assert spans(moments) == [(0, 0.0, 3000.0)]
    assert len(asked) <= 300


def test_rows_that_must_not_be_found_end_a_moment():
    rows = rows_of([[0.7] * 5])
    hits = hits_of([[0.7] * 5], rows)
    best = hits[int(rows.in_order[2])]
    allowed = {int(rows.in_order[place]) for place in (1, 2, 4)}
    more = missing_neighbours(
        merge_hits([best]), [best], rows, lambda wanted: [hits[row] for row in wanted.tolist() if row in allowed]
    )
    assert [hit.start_s for hit in more] == [10.0]


@given(
    st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.52, 0.9, 0.95, 1.0]), max_size=9), min_size=1, max_size=3),
    st.integers(1, 5),
)
def test_bounds_do_not_depend_on_how_many_were_fetched(videos, num_fetched):
    rows = rows_of(videos)
    everything = merge_hits(sorted(hits_of(videos, rows).values(), key=lambda hit: -hit.score))
    moments, _ = completed(videos, num_fetched)
    assert set(spans(moments)) <= set(spans(everything))
