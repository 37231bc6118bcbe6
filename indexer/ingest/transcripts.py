"""Subtitle files beside a video (SubRip .srt, WebVTT .vtt) as timed text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from indexer.errors import StorageError
from indexer.ingest.files import VideoFile
from indexer.ingest.languages import detect_language
from indexer.ingest.paths import read_error
from indexer.ingest.sidecars import language_of_name, sidecars_beside, subtitle_path
from indexer.storage import location, open_binary

MAX_SUBTITLE_BYTES = 32 << 20
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s|$)")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One subtitle, shown during [start_s, end_s), seconds. `text` is one line without markup."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """What the subtitle file of a video says.

    Attributes:
        subtitles: which file, in which state; see `VideoFile`. Taken before it was read, so that what is written to it
            meanwhile is noticed later.
    """

    subtitles: str = ""
    cues: list[Cue] = field(default_factory=list)

    def language(self, audio_language: str | None) -> str | None:
        """The language of the video: the one in the subtitle file's name, else of its text, else of the sound."""
        texts = [cue.text for cue in self.cues]
        return language_of_name(self.subtitles) or detect_language(texts) or audio_language


def read_transcript(file: VideoFile) -> Transcript:
    """The subtitle file beside a video, without cues if it cannot be read.

    Raises:
        VideoError: stage "read": the bucket cannot be reached, so that there is no telling.
    """
    try:
        subtitles = file.subtitles
        if subtitles is None:
            subtitles = sidecars_beside(file.path).of(location(file.path).name)
        return Transcript(subtitles=subtitles, cues=_read_cues(file.path, subtitles) if subtitles else [])
    except StorageError as error:
        raise read_error(error) from error


def _read_cues(video_path: str, subtitles: str) -> list[Cue]:
    try:
        with open_binary(subtitle_path(video_path, subtitles)) as file:
            return parse_subtitles(file.read(MAX_SUBTITLE_BYTES))
    except OSError:
        return []


def parse_subtitles(data: bytes) -> list[Cue]:
    """Cues of a .srt or .vtt file in order of start. Cues that make no sense are left out."""
    cues: list[Cue] = []
    span: tuple[float, float] | None = None
    lines: list[str] = []
    for line in [*_decoded(data).splitlines(), ""]:
        timing = _TIMING.match(line)
        if timing is None and line.strip():
            lines.append(line)
            continue
        if span is not None and span[1] > span[0] and (text := _plain(" ".join(_without_next_number(lines, timing)))):
            cues.append(Cue(start_s=span[0], end_s=span[1], text=text))
        span = None if timing is None else (_seconds(timing.groups()[:4]), _seconds(timing.groups()[4:]))
        lines = []
    return sorted(cues, key=lambda cue: (cue.start_s, cue.end_s))


def _without_next_number(lines: list[str], next_timing: re.Match[str] | None) -> list[str]:
    """Where no blank line separates two cues, the last line is the number of the next one."""
    return lines[:-1] if next_timing is not None and lines and lines[-1].strip().isdigit() else lines


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _plain(text: str) -> str:
    text = html.unescape(_MARKUP.sub("", text))
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, seconds, fraction = parts
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0) + float(f"0.{fraction or 0}")


def text_between(cues: Sequence[Cue], start_s: float, end_s: float) -> str | None:
    """What is said in [start_s, end_s): the text of every cue that overlaps it, once each in a row; None if nothing."""
    texts: list[str] = []
    for cue in cues:
        if cue.start_s < end_s and cue.end_s > start_s and (not texts or texts[-1] != cue.text):
            texts.append(cue.text)
    return " ".join(texts) or None
