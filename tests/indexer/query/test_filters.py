"""Filtered search against a loop over all moments."""

import datetime
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.errors import UsageError
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.video_index import VideoIndex
from tests.indexer.conftest import write_small_videos
from tests.indexer.query.conftest import indexed_folder


@pytest.fixture(scope="module")
def videos(make_videos, tmp_path_factory) -> Path:
    """a.mp4 of 12 s, b.mkv of 3 s with subtitles, sub/c.avi of 1 s; modified in 2021, 2022 and 2023."""
    videos = write_small_videos(make_videos, tmp_path_factory.mktemp("filters") / "videos")
    for year, name in [(2021, "a.mp4"), (2022, "b.mkv"), (2023, "sub/c.avi")]:
        time_s = datetime.datetime(year, 6, 1, tzinfo=datetime.UTC).timestamp()
        os.utime(videos / name, (time_s, time_s))
    return videos


@pytest.fixture(scope="module")
def index(videos) -> VideoIndex:
    """An index of them. Not to be changed."""
    return indexed_folder(videos, videos.parent / "index")


def names(index, **filters):
    every = Diversity(collapse=False)
    found = index.search("blocks", k=100, where=Filters(**filters), diversity=every).results
    return sorted({Path(moment.video).name for moment in found})


ALL = ["a.mp4", "b.mkv", "c.avi"]


KEPT = [
    ({}, ALL),
    ({"video": "*.m*"}, ["a.mp4", "b.mkv"]),
    ({"video": "sub/*"}, ["c.avi"]),
    ({"video": "*/videos/*.mkv"}, ["b.mkv"]),
    ({"video": "[ab].*"}, ["a.mp4", "b.mkv"]),
    ({"video": "A.mp4"}, []),
    ({"in_video": "sub/c.avi"}, ["c.avi"]),
    ({"min_duration_s": 2.5}, ["a.mp4", "b.mkv"]),
    ({"max_duration_s": 3.0}, ["b.mkv", "c.avi"]),
    ({"min_duration_s": 2, "max_duration_s": 4}, ["b.mkv"]),
    ({"min_height": 100_000}, []),
    ({"min_height": 1}, ALL),
    ({"modified_after": "2022-06-01"}, ["b.mkv", "c.avi"]),
    ({"modified_before": "2022-06-01"}, ["a.mp4"]),
    ({"modified_before": "2022-06-01T02:00+01:00"}, ["a.mp4", "b.mkv"]),
    ({"indexed_after": "2020-01-01"}, ALL),
    ({"indexed_before": "2020-01-01"}, []),
    ({"has_speech": True}, ["b.mkv"]),
    ({"has_speech": False}, ["a.mp4", "c.avi"]),
    ({"where": ("duration_s>2", "title!=x")}, ["b.mkv"]),
    ({"where": ("title=The second",)}, ["b.mkv"]),
    ({"where": ("partial=no", "video_codec == mpeg4")}, ["c.avi"]),
    ({"labels": ("no such label",)}, []),
]


def test_filters_keep_what_they_say(index):
    for filters, expected in KEPT:
        assert names(index, **filters) == expected, filters


def test_label_filters_are_those_of_a_loop(colours):
    snapshot = colours.snapshot
    stored = snapshot.read(range(snapshot.num_segments), ["labels"])["labels"].to_pylist()
    for label, score in [("red", 0.0), ("RED", 0.3), ("green", 0.9), ("blue", 0.05)]:
        expected = [any(x["label"] == label.lower() and x["score"] >= score for x in row) for row in stored]
        assert Filters(labels=(f"{label}>={score}",)).mask(snapshot).tolist() == expected
    assert Filters(labels=("red",)).mask(snapshot).any()


REFUSED = [
    ({"in_video": "d.mp4"}, "'d.mp4' is not in the index"),
    ({"where": ("colour=red",)}, "no column 'colour' to filter by"),
    ({"where": ("height=tall",)}, "holds int32: compare it with a number, got 'tall'"),
    ({"where": ("has_audio=perhaps",)}, "compare it with true or false, got 'perhaps'"),
    ({"where": ("indexed_at>now",)}, "compare it with a date or time"),
    ({"where": ("height",)}, "a condition is COLUMN=VALUE"),
    ({"min_duration_s": -1}, "min_duration_s must be at least 0, got -1"),
    ({"min_duration_s": float("nan")}, "min_duration_s must be"),
    ({"modified_after": "yesterday"}, "modified_after must be a date"),
    ({"labels": ("x>=2",)}, "a label filter is NAME or NAME>=SCORE"),
    ({"metadata": "m.csv"}, "filters nothing without a condition"),
    ({"metadata": "m.txt", "where": ("a=1",)}, "must be a .parquet, .csv or .tsv file"),
    ({"metadata": "none.csv", "where": ("a=1",)}, "cannot read the metadata 'none.csv'"),
]


def test_filters_that_fit_nothing_are_refused_in_one_line(index):
    for filters, reason in REFUSED:
        with pytest.raises(UsageError, match=reason) as caught:
            index.search("blocks", where=Filters(**filters))
        assert "\n" not in str(caught.value)


def write_metadata(path, rows):
    table = pa.Table.from_pylist(rows)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        separator = "\t" if path.suffix == ".tsv" else ","
        lines = [separator.join(table.column_names), *(separator.join(map(str, row.values())) for row in rows)]
        path.write_text("\n".join(lines))
    return str(path)


def test_columns_of_metadata_filter_by_path(index, videos):
    rows = [
        {"path": "sub/c.avi", "camera": "north", "takes": 3, "day": "2024-05-02"},
        {"path": str(videos / "a.mp4"), "camera": "south", "takes": 12, "day": "2024-04-30"},
    ]
    for kind in ("csv", "tsv", "parquet"):
        metadata = write_metadata(videos / f"own.{kind}", rows)
        for condition, expected in [
            ("camera=north", ["c.avi"]),
            ("takes>5", ["a.mp4"]),
            ("takes<100", ["a.mp4", "c.avi"]),
            ("camera!=north", ["a.mp4"]),
            ("day>=2024-05-01", ["c.avi"]),
        ]:
            assert names(index, metadata=metadata, where=(condition,)) == expected, (kind, condition)
        assert names(index, metadata=metadata, where=("takes<100", "duration_s>5")) == ["a.mp4"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"path": "a.mp4", "x": 1}, {"path": "./a.mp4", "x": 2}], "rows 1 and 2 of the metadata .* the same video"),
        ([{"path": "a.mp4", "x": 1}, {"path": "z.mp4", "x": 2}], "row 2 of the metadata .* names 'z.mp4', which is no"),
        ([{"name": "a.mp4", "x": 1}], "needs a column path, video, file or uri"),
    ],
)
def test_metadata_that_does_not_fit_is_refused(index, videos, rows, reason):
    metadata = write_metadata(videos / "own.csv", rows)
    with pytest.raises(UsageError, match=reason):
        names(index, metadata=metadata, where=("x=1",))


def test_filters_and_required_words_go_together(index):
    assert names(index) == ALL
    for filters, expected in [({"video": "*.mkv"}, 1), ({"video": "*.mp4"}, 0)]:
        assert len(index.search('"black and white"', where=Filters(**filters)).results) == expected


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), k=st.integers(1, 30))
def test_search_among_allowed_moments_is_that_of_brute_force(colours, data, k):
    snapshot = colours.snapshot
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(snapshot.rows), max_size=len(snapshot.rows))))
    query = colours.encode_texts(["red"])
    scores, rows = snapshot.search(query, k, allowed)
    exact = snapshot.embeddings() @ query[0]
    assert allowed[rows].all()
    assert rows.shape == (1, min(k, allowed.sum()))
    assert scores[0] == pytest.approx(np.sort(exact[allowed])[::-1][:k], abs=1e-5)
