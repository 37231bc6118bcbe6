"""What is said and what is seen disagree: the tiny model knows colours, the subtitles speak of other things."""

import shutil
from pathlib import Path

import pytest

from indexer.query.video_index import VideoIndex
from tests.indexer.query.conftest import indexed_folder, write_three

SPOKEN = {
    "red": "The quarterly revenue report was delayed by the winter storm",
    "blue": "our revenue grew in winter",
    "mixed": "nothing to see here",
}


@pytest.fixture(scope="module")
def speaking_index(tmp_path_factory) -> VideoIndex:
    """The colour videos with subtitles. Not to be changed."""
    folder = tmp_path_factory.mktemp("speaking")
    videos = write_three(folder / "videos")
    for name, text in SPOKEN.items():
        (videos / f"{name}.srt").write_text(f"1\n00:00:00,000 --> 00:10:00,000\n{text}\n")
    return indexed_folder(videos, folder / "index")


def names(result):
    return [Path(moment.video).stem for moment in result.results]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('"revenue report"', {"red"}),
        ('"revenue"', {"red", "blue"}),
        ('"report revenue"', set()),
        ('"winter" -storm', {"blue"}),
        ('"winter" "revenue" "REPORT"', {"red"}),
        ("quarter*", {"red"}),
        ("colour -revenue", {"mixed"}),
        ('-"revenue report" colour', {"blue", "mixed"}),
    ],
)
def test_required_and_excluded_words_decide_what_is_found(speaking_index, query, found):
    result = speaking_index.search(query, k=10)
    assert set(names(result)) == found
    if '"' in query and not query.startswith("-"):
        assert result.matched is bool(found)


@pytest.mark.parametrize("query", ["winter storm delayed report", "the quarterly report"])
def test_plain_words_find_speech_that_disagrees_with_the_picture(speaking_index, query):
    result = speaking_index.search(query, k=3)
    assert names(result)[0] == "red"
    assert result.matched
    assert "**report**" in result.results[0].snippet
    assert [moment.score for moment in result.results] == sorted((m.score for m in result.results), reverse=True)


def test_what_is_seen_is_still_found(speaking_index):
    assert names(speaking_index.search("blue", k=1)) == ["blue"]
    assert names(speaking_index.search("yellow", k=1)) == ["mixed"]


def test_words_of_moments_that_no_file_covers_are_found(speaking_index, tmp_path):
    before = {query: speaking_index.search(query, k=10).to_dict() for query in ('"revenue"', "winter storm", "blue")}
    shutil.copytree(speaking_index.path, tmp_path / "index")
    for path in (tmp_path / "index" / "keywords").iterdir():
        path.unlink()
    uncovered = VideoIndex.open(tmp_path / "index")
    assert not uncovered.snapshot.keyword_coverage.file
    for query, result in before.items():
        assert uncovered.search(query, k=10).to_dict() == result


def test_many_queries_with_syntax_equal_single_ones(speaking_index):
    queries = ['"revenue"', "winter", "red -storm", "blue", '"nowhere"']
    for query, together in zip(queries, speaking_index.search_many(queries, 4), strict=True):
        alone = speaking_index.search(query, 4)
        assert [m.segment_id for m in together.results] == [m.segment_id for m in alone.results]


def test_captions_are_taken_as_they_are_without_syntax(speaking_index):
    (result,) = speaking_index.search_many(['-storm "revenue'], 10, syntax=False)
    assert set(names(result)) == set(SPOKEN)


def test_words_of_an_index_in_a_bucket_are_found(videos, run_index, bucket):
    run_index(videos, into=bucket / "index")
    index = VideoIndex.open(bucket / "index")
    assert index.snapshot.keyword_coverage.file
    assert names(index.search('"black and white"')) == ["b"]
