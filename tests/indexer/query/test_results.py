"""Answers as tables, as HTML and in other processes."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import pickle
import re

import pandas as pd
import pytest

from indexer.query.results import Classification, ClassifiedMoment, Label, Moment, SearchResult


def _moment(rank=1, **values):
    defaults = {
        "video": "/videos/a.mp4",
        "start_s": 0.0,
        "end_s": 2.5,
        "score": 0.5,
        "confidence": 0.9,
        "labels": [Label(label="cat", score=0.7)],
        "transcript": None,
        "segment_id": 2**62 + rank,
    }
    return Moment(rank=rank, **{**defaults, **values})


def _classified(text="a"):
    labels = [Label(label=text, score=0.5)]
    return ClassifiedMoment(video=text, start_s=0, end_s=1, labels=labels, none_of_these=0.5, segment_id=1)


class _Tags(html.parser.HTMLParser):
    """Collects tags and attributes, and fails where a tag is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_search_result_is_a_sequence_of_its_moments(colours):
    result = colours.search("red", k=3)
    assert list(result) == result.results
    assert (len(result), result[0]) == (len(result.results), result.results[0])
    assert SearchResult(query="a", matched=False, results=[])  # an answer, though it is empty


def test_search_result_as_tables_says_what_the_moments_say(colours):
    result = colours.search("red", k=3)
    table, frame = result.to_arrow(), result.to_pandas()
    for name in set(table.column_names):
        assert (
            table[name].to_pylist()
            == [
                [dataclasses.asdict(label) for label in moment.labels] if name == "labels" else getattr(moment, name)
                for moment in result
            ]
            or name == "labels"
        )
    assert isinstance(frame, pd.DataFrame)
    assert frame["segment_id"].tolist() == [moment.segment_id for moment in result]
    assert frame["labels"][0][0]["label"] == result[0].labels[0].label
    assert [
        name for name in (field.name for field in dataclasses.fields(Moment)) if name not in table.column_names
    ] == ["alike"]


def test_empty_answers_have_the_same_columns(colours):
    empty = SearchResult(query="a", matched=False, results=[])
    assert empty.to_arrow().schema == colours.search("red").to_arrow().schema
    assert len(empty.to_pandas()) == 0
    assert Classification().to_arrow().column_names[-1] == "none of these"


def test_classification_as_a_table_has_a_column_a_label(colours):
    moments = colours.classify(["red", "blue"])
    frame = moments.to_pandas()
    assert list(frame.columns) == ["video", "start_s", "end_s", "segment_id", "answer", "blue", "red", "none of these"]
    assert frame[["blue", "red", "none of these"]].sum(axis=1).tolist() == pytest.approx([1.0] * len(frame))
    for moment, (_, row) in zip(moments, frame.iterrows(), strict=True):
        assert {label.label: row[label.label] for label in moment.labels} == {
            label.label: label.score for label in moment.labels
        }


def test_classification_gives_a_part_and_the_whole_count(colours):
    everything = colours.classify(["red", "blue"])
    part = colours.classify(["red", "blue"], start=1, limit=2)
    assert (list(part), part.num_moments) == (everything[1:3], len(everything))


def test_html_shows_the_thumbnails_of_the_version_that_was_asked(colour_index, colour_videos, run_index):
    result = colour_index.search("red", k=2)
    expected = [colour_index.thumbnail(moment.segment_id) for moment in result]
    (colour_videos / "red.mp4").unlink()
    run_index(colour_videos, prune=True)
    colour_index.reload()
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', result._repr_html_())
    assert [base64.b64decode(picture) for picture in found] == expected


def test_html_escapes_everything_that_comes_from_files_and_people():
    hostile = '<script>alert(1)</script>"onload="x" \u202e\x1b'
    moment = _moment(
        video=f"/videos/{hostile}.mp4",
        transcript=hostile,
        snippet=f"**{hostile}** and",
        labels=[Label(label=hostile, score=0.5)],
    )
    classified = _classified(hostile)
    for shown in (
        SearchResult(query=hostile, matched=True, results=[moment])._repr_html_(),
        Classification([classified])._repr_html_(),
    ):
        tags = _Tags(shown)
        assert set(tags.tags) <= {"div", "p", "b", "br", "img", "mark", "code"}
        assert {name for name, _ in tags.attributes} <= {"style", "src", "alt", "title"}
        assert "\u202e" not in shown
        assert "\x1b" not in shown


def test_html_marks_the_words_that_matched():
    shown = SearchResult(query="a", matched=True, results=[_moment(snippet="the **red & old** sea")])._repr_html_()
    assert "the <mark>red &amp; old</mark> sea" in shown


def test_html_shows_some_and_counts_the_rest():
    result = SearchResult(query="a", matched=True, results=[_moment(rank) for rank in range(1, 71)])
    assert "… and 20 more" in result._repr_html_()
    part = Classification([_classified()], num_moments=3)._repr_html_()
    assert ("1 of 3 moments" in part, "more" in part) == (True, False)
    assert "no confident match" in SearchResult(query="a", matched=False, results=[_moment()])._repr_html_()
    assert "nothing found" in SearchResult(query="a", matched=False, results=[])._repr_html_()


def test_answers_travel_to_other_processes_without_the_index(colours):
    for answer in (colours.search("red", k=2), colours.classify(["red"])):
        copy = pickle.loads(pickle.dumps(answer))
        assert (copy == answer, copy.snapshot) == (True, None)
        assert "base64" not in copy._repr_html_()
