from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ingest.files import VideoFile
from indexer.ingest.sidecars import sidecars_beside
from indexer.ingest.transcripts import Cue, Transcript, parse_subtitles, read_transcript, text_between

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello <i>there</i>

2
00:00:03,000 --> 00:00:04,000 X1:0 X2:100
two
lines
"""
VTT = """WEBVTT

NOTE a remark
that goes on

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start
<v Anna>Hello &amp; <c.loud>welcome</c>

01:00:03.000 --> 01:00:04.000
later
"""


def cues(text):
    return [(cue.start_s, cue.end_s, cue.text) for cue in parse_subtitles(text.encode())]


def test_srt_is_read():
    assert cues(SRT) == [(1.0, 2.5, "Hello there"), (3.0, 4.0, "two lines")]


def test_vtt_is_read():
    assert cues(VTT) == [(1.0, 2.5, "Hello & welcome"), (3603.0, 3604.0, "later")]


def test_cues_without_blank_lines_between_are_told_apart():
    text = "1\n00:00:01,000 --> 00:00:02,000\none\n2\n00:00:02,000 --> 00:00:03,000\ntwo"

    assert [cue[2] for cue in cues(text)] == ["one", "two"]


def test_cue_text_may_be_a_number():
    assert [cue[2] for cue in cues("1\n00:00:01,000 --> 00:00:02,000\n42\n\n")] == ["42"]


@pytest.mark.parametrize(
    "line",
    [
        "00:00:02,000 --> 00:00:01,000",  # ends before it starts
        "00:00:0x,000 --> 00:00:01,000",
        "00:00:01,000 -> 00:00:02,000",
        "--> 00:00:01,000",
    ],
)
def test_malformed_cue_is_left_out_and_the_next_is_read(line):
    assert [cue[2] for cue in cues(f"1\n{line}\nbad\n\n2\n00:00:05,000 --> 00:00:06,000\ngood\n")] == ["good"]


def test_control_characters_and_markup_are_removed():
    assert cues("00:01.0 --> 00:02.0\n{\\an8}a\x07b\u200b <b>c</b>\n") == [(1.0, 2.0, "a b c")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings_are_recognised(encoding):
    (cue,) = parse_subtitles("1\r\n00:00:01,000 --> 00:00:02,000\r\nCafé Zoë\r\n".encode(encoding))

    assert cue.text == "Café Zoë"


@given(st.binary(max_size=2000))
def test_any_bytes_give_a_list_in_order(data):
    found = parse_subtitles(b"00:01.000 --> 00:02.000\n" + data)

    assert found == sorted(found, key=lambda cue: (cue.start_s, cue.end_s))
    assert all(cue.end_s > cue.start_s and cue.text.isprintable() for cue in found)


def video_beside(folder, **listed) -> VideoFile:
    path = str(folder / "film.mp4")
    return VideoFile(uri=path, path=path, size_bytes=1, mtime_ns=1, **listed)


def test_transcript_is_read_from_the_file_that_was_listed_or_else_found(tmp_path):
    (tmp_path / "film.srt").write_text(SRT)
    (tmp_path / "film.de.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nGuten Tag\n")
    found = read_transcript(video_beside(tmp_path))
    assert [cue.text for cue in found.cues] == ["Hello there", "two lines"]
    assert found.subtitles.startswith(".srt mtime_ns:")
    listed = read_transcript(video_beside(tmp_path, subtitles=".de.vtt bytes:9"))
    assert (listed.subtitles, [cue.text for cue in listed.cues]) == (".de.vtt bytes:9", ["Guten Tag"])


def test_no_subtitle_file_gives_no_cues(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        assert read_transcript(video_beside(folder)) == Transcript()
    assert read_transcript(video_beside(tmp_path, subtitles=".srt bytes:9")).cues == []


ENGLISH = "We told them that the road over the hill was closed because of the snow."


@pytest.mark.parametrize(
    ("name", "of_sound", "text", "language"),
    [
        (".de.srt", "fr", ENGLISH, "de"),
        (".pt-BR.srt", None, ENGLISH, "pt"),
        (".srt", "fr", ENGLISH, "en"),
        (".srt", "fr", "Yes.", "fr"),
        (".srt", None, ENGLISH, "en"),
        (".one.srt", None, ENGLISH, "en"),
        (".srt", None, "Yes.", None),
        ("", "ja", "", "ja"),
        ("", None, "", None),
    ],
)
def test_language_is_that_of_the_name_else_of_the_text_else_of_the_sound(name, of_sound, text, language):
    cues = [Cue(start_s=0, end_s=2, text=text)] if text else []
    transcript = Transcript(subtitles=f"{name} bytes:9" if name else "", cues=cues)
    assert transcript.language(of_sound) == language


@pytest.mark.timeout(30)
def test_pipe_is_no_subtitle_file(tmp_path):
    os.mkfifo(tmp_path / "film.srt")

    assert sidecars_beside(str(tmp_path / "film.mp4")).of("film.mp4") == ""
    assert read_transcript(video_beside(tmp_path, subtitles=None)).cues == []


def test_text_between_takes_what_overlaps():
    spoken = [
        Cue(start_s=start, end_s=start + 2, text=text) for start, text in [(0, "a"), (2, "b"), (3, "b"), (8, "c")]
    ]

    assert text_between(spoken, 0, 2) == "a"
    assert text_between(spoken, 1.9, 3.5) == "a b"
    assert text_between(spoken, 5, 8) is None
    assert text_between(spoken, 0, 100) == "a b c"
