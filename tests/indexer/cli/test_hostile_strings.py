"""Names, titles and subtitles that want to drive a terminal, a browser or a shell come out as harmless text."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from indexer import VideoIndex
from indexer.config import RunConfig, SamplingConfig
from indexer.errors import UsageError
from indexer.pipeline import index_videos
from indexer.store.index import IndexStore
from indexer.store.verify import verify

NAMES = [
    "<img src=x onerror=alert(1)><script>alert(2)<\\script>.mp4",
    "\x1b[31mred \x1b[2J\x1b]0;title\x07.mp4",
    "c1 \x9b31m \x85 \x7f.mp4",
    "two\nlines\r3  sound: tables agree.mp4",
    "\u202egpj.evil \u2066\u200b.mp4",
    "[bold red]markup[bold] \\[x].mp4",
    "=HYPERLINK(\"http:\\x\")+cmd|' C'!A0.mp4",
    "--help; rm -rf $HOME `id` %s%n {0}.mp4",
    "-k.mp4",
    "long " + "n" * 246 + ".mp4",
    "K\u00f6che \U0001f415 \u72d7.mp4",
]
INVALID_UTF8 = b"\xff\xfe\x80 broken.mp4"
SPEECH = "<script>alert(3)</script> \x1b[31mspoken\x1b[0m \u202e \x9b1m [bold]words[/bold] " + "long " * 2000
TITLE = "\x1b[5mtitle\x1b[0m <b>bold</b> \u202e\x07"


@pytest.fixture(scope="module")
def hostile_videos(make_videos, tmp_path_factory) -> Path:
    """One short video under every name, a broken one under a hostile name, and hostile subtitles in two encodings."""
    root = tmp_path_factory.mktemp("hostile")
    folder = root / "videos"
    folder.mkdir()
    source = Path(make_videos(root).write("source.mp4", range(0, 1_000, 100), title=TITLE)).read_bytes()
    for name in [*NAMES, INVALID_UTF8]:
        with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "wb") as file:
            file.write(source)
    (folder / "\x1b[31mbroken\nsound <b>.mp4").write_bytes(b"no video")
    cue = f"1\n00:00:00,000 --> 00:00:01,000\n{SPEECH}\n"
    (folder / "-k.srt").write_bytes(cue.encode())
    (folder / "long.mp4").write_bytes(source)
    (folder / "long.srt").write_bytes(cue.encode("utf-8").replace(b"words", b"w\xff\xfe\x80rds"))
    return folder


@pytest.fixture(scope="module")
def hostile_index(hostile_videos: Path) -> Path:
    index = hostile_videos.parent / "index"
    settings = {"model": "tiny_test", "sampling": SamplingConfig(), "run": RunConfig(), "in_process": True}
    run = index_videos([str(hostile_videos)], index, **settings)
    assert (run.indexed, run.failed) == (len(NAMES) + 2, 1)
    return index


def assert_harmless(*texts: str) -> None:
    """Nothing that a terminal obeys: no control or format characters but the ends of lines."""
    for text in texts:
        bad = {c for c in text if not c.isprintable() and c != "\n"}
        assert not bad, (bad, text[:500])


def uris(index: Path) -> list[str]:
    return sorted(IndexStore.open(index).snapshot().videos["uri"].to_pylist())


def test_every_hostile_name_is_indexed_and_found_under_its_own_name(hostile_videos, hostile_index, videobert):
    expected = [str(hostile_videos / name) for name in [*NAMES, "long.mp4"]]
    from_bytes = [uri for uri in uris(hostile_index) if uri.startswith("file://")]
    assert len(from_bytes) == 1
    assert from_bytes[0].endswith("/%FF%FE%80%20broken.mp4")
    assert uris(hostile_index) == sorted(expected + from_bytes)
    assert verify(IndexStore.open(hostile_index)) == []
    _, out, _ = videobert("index", hostile_videos, "--into", hostile_index, "--model", "tiny_test", "--json")
    assert json.loads(out)["unchanged"] == len(NAMES) + 2


def test_search_and_classify_print_hostile_strings_harmlessly(hostile_index, videobert):
    num_videos = len(uris(hostile_index))
    for arguments in (
        ["search", hostile_index, "a dog", "-k", 100, "--show-alike"],
        ["classify", hostile_index, "--labels", "a,b"],
    ):
        code, out, err = videobert(*arguments)
        assert code == 0
        assert_harmless(out, err)
        rows = [line for line in out.splitlines() if ".mp4" in line]
        assert len(rows) >= num_videos - 1, "one row each; the longest name is folded"
        assert "[bold red]markup[bold]" in out, "markup is text"
        assert not any(line.startswith("3  sound") for line in out.splitlines()), "a name cannot add a row"


def test_json_is_one_harmless_line_and_gives_the_exact_strings(hostile_index, videobert):
    code, out, err = videobert("search", hostile_index, "a dog", "-k", "100", "--show-alike", "--json")
    assert code == 0
    assert_harmless(out, err)
    (line,) = out.splitlines()
    results = json.loads(line)["results"]
    assert sorted(result["video"] for result in results) == uris(hostile_index)
    _, out, _ = videobert("classify", hostile_index, "--labels", "a,b", "--json")
    assert_harmless(out)
    assert sorted(json.loads(line)["video"] for line in out.splitlines()) == uris(hostile_index)


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_failures_info_and_verify_are_harmless(hostile_index, videobert, options):
    for verb in ("failures", "info", "verify"):
        code, out, err = videobert(verb, hostile_index, *options)
        assert code == 0
        assert_harmless(out, err)
        if verb == "failures":
            assert len(out.splitlines()) == (1 if options else 2)


def test_titles_and_subtitles_are_stored_without_control_characters_and_markup(hostile_index):
    snapshot = IndexStore.open(hostile_index).snapshot()
    assert set(snapshot.videos["title"].to_pylist()) == {
        " ".join(TITLE.replace("\x1b", " ").replace("\u202e\x07", "").split())
    }
    transcripts = set(snapshot.read(range(snapshot.num_segments), ["transcript"])["transcript"].to_pylist())
    assert len(transcripts) == 3, "none, the clean one and the one that is not UTF-8"
    for text in transcripts - {None}:
        assert text.isprintable()
        assert "<script>" not in text
        assert "spoken" in text


def test_export_holds_every_name_as_it_is(hostile_index, videobert, tmp_path):
    for out in ("moments.parquet", "\x1b[31mout\n.parquet"):
        code, printed, err = videobert("export", hostile_index, tmp_path / out)
        assert code == 0
        assert_harmless(printed, err)
        assert sorted(pq.read_table(tmp_path / out)["video"].to_pylist()) == uris(hostile_index)


def test_errors_show_hostile_arguments_harmlessly(hostile_index, hostile_videos, videobert, tmp_path):
    hostile = "\x1b[31m<b>\n\u202e\x9b"
    for arguments in (
        ["search", tmp_path / hostile, "a dog"],
        ["index", tmp_path / hostile, "--into", tmp_path / "i2", "--model", "tiny_test"],
        ["index", hostile_videos, "--into", tmp_path / "i2", "--model", hostile],
        ["remove", hostile_index, hostile],
        ["classify", hostile_index, "--labels", ","],
        ["retry", hostile_index, "--stage", hostile],
    ):
        code, out, err = videobert(*arguments)
        assert code in (1, 2), arguments
        assert_harmless(out, err)
        assert len(err.splitlines()) == 1, err


def test_video_with_a_hostile_name_can_be_removed_by_name(hostile_videos, hostile_index, videobert, tmp_path):
    index = shutil.copytree(hostile_index, tmp_path / "index")
    code, out, err = videobert("remove", index, *(hostile_videos / name for name in NAMES))
    assert (code, out) == (0, f"{len(NAMES)} removed\n"), err
    assert len(uris(index)) == 2


def test_clip_of_a_hostile_name_plays_and_none_of_a_file_outside_the_index(hostile_index, synthetic):
    index = VideoIndex.open(hostile_index)
    for uri in index.videos:
        with av.open(io.BytesIO(index.clip(uri, 0, 0.5))) as container:
            assert container.streams.video
    outside = synthetic.write("outside.mp4", range(0, 1_000, 100))
    inside = index.videos[0]
    for uri in (outside, f"{Path(inside).parent}/../outside.mp4", f"file://{outside}", "/etc/passwd", f"{inside}\0"):
        with pytest.raises(UsageError, match="is not in the index"):
            index.clip(uri, 0, 0.5)
