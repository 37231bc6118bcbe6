from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.ingest.transcripts import Cue, find_sidecar, parse_subtitles, read_sidecar, text_between

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


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["film.srt"], "film.srt"),
        (["film.de.srt", "film.en.vtt"], "film.en.vtt"),
        (["film.de.srt", "film.fr.vtt"], "film.de.srt"),
        (["film.en.srt", "film.vtt"], "film.vtt"),
        (["film.pt-BR.srt"], "film.pt-BR.srt"),
        (["film.SRT"], "film.SRT"),
        (["film2.srt", "film.txt", "film.part.two.srt"], None),
        ([], None),
    ],
)
def test_sidecar_is_found_by_its_stem(tmp_path, names, chosen):
    for name in names:
        (tmp_path / name).touch()

    found = find_sidecar(str(tmp_path / "film.mp4"))

    assert found == (None if chosen is None else str(tmp_path / chosen))


def test_sidecar_is_read(tmp_path):
    (tmp_path / "film.srt").write_text(SRT)

    assert [cue.text for cue in read_sidecar(str(tmp_path / "film.mp4"))] == ["Hello there", "two lines"]


def test_no_sidecar_gives_no_cues(tmp_path):
    assert read_sidecar(str(tmp_path / "film.mp4")) == []
    assert read_sidecar(str(tmp_path / "none" / "film.mp4")) == []


@pytest.mark.timeout(30)
def test_pipe_is_no_subtitle_file(tmp_path):
    os.mkfifo(tmp_path / "film.srt")

    assert read_sidecar(str(tmp_path / "film.mp4")) == []


def test_text_between_takes_what_overlaps():
    spoken = [
        Cue(start_s=start, end_s=start + 2, text=text) for start, text in [(0, "a"), (2, "b"), (3, "b"), (8, "c")]
    ]

    assert text_between(spoken, 0, 2) == "a"
    assert text_between(spoken, 1.9, 3.5) == "a b"
    assert text_between(spoken, 5, 8) is None
    assert text_between(spoken, 0, 100) == "a b c"
