"""Filtering by language: by name, by sound, by text; in Python, on the command line, in SQL and in the export."""

import json
from pathlib import Path

import duckdb
import pytest

from indexer.errors import UsageError
from indexer.export import export_moments
from indexer.query.diversity import Diversity
from indexer.query.filters import Filters
from indexer.query.video_index import VideoIndex
from indexer.store.index import IndexStore


@pytest.fixture
def folder(videos, run_index, synthetic, tmp_path) -> Path:
    """a.mp4 with German subtitles by name, b.mkv with English ones, c.avi with nothing, d.mp4 with Japanese sound."""
    (videos / "a.de-AT.srt").write_text("1\n00:00:00,500 --> 00:00:02,000\nJa.\n")
    synthetic.write("videos/d.mp4", range(0, 1000, 100), sound_s=1.0, sound_language="jpn")
    run_index(videos)
    return tmp_path / "index"


def names(folder, **filters):
    every = Diversity(collapse=False)
    found = VideoIndex.open(folder).search("blocks", k=100, where=Filters(**filters), diversity=every).results
    return sorted({Path(moment.video).name for moment in found})


def test_filter_keeps_the_videos_of_a_language(folder, videobert, tmp_path):
    for language, expected in [
        ("de", ["a.mp4"]),
        ("en", ["b.mkv"]),
        ("ja", ["d.mp4"]),
        ("EN-us", ["b.mkv"]),
        ("ger", ["a.mp4"]),
        ("de, en", ["a.mp4", "b.mkv"]),
        (("de", "en,ja"), ["a.mp4", "b.mkv", "d.mp4"]),
        ("", ["a.mp4", "b.mkv", "c.avi", "d.mp4"]),
    ]:
        assert names(folder, language=language) == expected, language
    assert names(folder, language="de", has_speech=False) == ["a.mp4"]  # its second moment
    assert names(folder, where=("language=en",)) == ["b.mkv"]
    assert names(folder, where=("language!=en",)) == ["a.mp4", "d.mp4"]
    assert Filters(language=()).is_empty
    assert not Filters(language="en").is_empty

    for options in (["--language", "de", "--language", "en"], ["--language", "de,en"]):
        code, out, _ = videobert("search", folder, "blocks", "--json", "--show-alike", *options)
        assert code == 0
        assert {Path(one["video"]).name for one in json.loads(out)["results"]} == {"a.mp4", "b.mkv"}
    code, _, err = videobert("search", folder, "blocks", "--language", "en,fr")
    line = "no video of the index is in the language 'fr': the languages in the index are de, en, ja; of 1 of 4 videos"
    assert code == 2
    assert f"{line} it is not known" in " ".join(err.split())

    with pytest.raises(UsageError, match="in the language 'klingon': the languages in the index are de, en, ja"):
        names(folder, language="klingon")
    with pytest.raises(UsageError, match="'und'"):
        names(folder, language="und")


def test_language_is_in_sql_and_export(folder, tmp_path):
    export_moments(IndexStore.open(folder), tmp_path / "out.parquet")
    said = {"a.mp4": "de", "b.mkv": "en", "c.avi": None, "d.mp4": "ja"}
    with duckdb.connect() as connection:
        rows = connection.execute(f"SELECT DISTINCT video, language FROM '{tmp_path / 'out.parquet'}'").fetchall()
    assert {Path(video).name: language for video, language in rows} == said
    index = VideoIndex.open(folder)
    for query in ("SELECT DISTINCT video, language FROM moments", "SELECT uri AS video, language FROM videos"):
        table = index.sql(query).table.to_pylist()
        assert {Path(row["video"]).name: row["language"] for row in table} == said
