from __future__ import annotations

import glob
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ingest.paths import is_video_name, matches_glob, path_to_uri, uri_to_path

FILES = ["a.mp4", "b.mkv", "x/a.mp4", "x/y/ab.mp4", "x/y/[1].mp4", ".h/a.mp4", "x/.a.mp4", "x-1/a^b.mp4"]
PATTERNS = [
    "*", "*.mp4", "**", "**/*", "**/*.mp4", "x/**", "x/**/*.mp4", "*/a*", "?.mp4", "[ab].*", "[!a].*", "x/y/[[]1].mp4",
    "x/.*.mp4", ".h/*", "**/a[\\^]b.mp4", "**/y/**/*.mp4", "**/[^a]b.mp4", "x*/a?b.mp4", "x/[", "nothing",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_pattern_matches_what_the_glob_finds(tmp_path, pattern):
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    found = {path for path in glob.glob(f"{tmp_path}/{pattern}", recursive=True) if os.path.isfile(path)}

    paths = {f"{tmp_path}/{name}" for name in FILES}
    assert {path for path in paths if matches_glob(path, f"{tmp_path}/{pattern}")} == found


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_uri_leads_back_to_the_path_and_is_utf8(name):
    path = os.fsdecode(b"/" + name)

    uri = path_to_uri(path)

    uri.encode("utf-8")
    assert uri_to_path(uri) == path


@pytest.mark.parametrize("uri", ["file:///a%20b.mp4", "file://localhost/a%20b.mp4"])
def test_file_uri_is_a_path(uri):
    assert uri_to_path(uri) == "/a b.mp4"


@pytest.mark.parametrize(("name", "expected"), [("a.MP4", True), ("a.gif", True), ("a.txt", False), ("mp4", False)])
def test_videos_are_known_by_extension(name, expected):
    assert is_video_name(name) is expected
