"""Subtitle files beside a video (SubRip .srt, WebVTT .vtt) as timed text."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.errors import StorageError
from indexer.ingest.paths import read_error
from indexer.storage import is_object_uri, location, names_beginning, open_binary

MAX_SUBTITLE_BYTES = 32 << 20
_TIME = r"(?:(\d{1,4}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,3}))?"
_TIMING = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}(?:\s|$)")
_MARKUP = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")


@dataclass(frozen=True, kw_only=True)
class Cue:
    """One subtitle, shown during [start_s, end_s), seconds. `text` is one line without markup."""

    start_s: float
    end_s: float
    text: str


def find_sidecar(video_path: str) -> str | None:
    """The subtitle file that belongs to the video: same stem, perhaps a language (`film.srt`, `film.en.vtt`).

    Without a language comes first, then English, then the rest in order of name.
    """
    video = location(video_path).absolute()
    stem = os.path.splitext(video.name)[0]
    try:
        names = names_beginning(video.parent, f"{stem}.")
    except OSError:
        return None
    ranked = [(rank, other) for other in names if (rank := _rank(stem, other)) is not None]
    return str(video.parent / min(ranked)[1]) if ranked else None


def _rank(stem: str, name: str) -> int | None:
    base, extension = os.path.splitext(name)
    if extension.lower() not in (".srt", ".vtt"):
        return None
    if base == stem:
        return 0
    language = base.removeprefix(stem + ".")
    if language == base or not _LANGUAGE.fullmatch(language):
        return None
    return 1 if language.lower().startswith("en") else 2


def read_sidecar(video_path: str) -> list[Cue]:
    """The cues of the subtitle file beside the video; [] if there is none, or none that can be read.

    Raises:
        VideoError: stage "read": the bucket cannot be reached, so that there is no telling.
    """
    try:
        path = find_sidecar(video_path)
        if path is None or not (is_object_uri(path) or os.path.isfile(path)):  # a pipe would be waited for, for ever
            return []
        with open_binary(path) as file:
            return parse_subtitles(file.read(MAX_SUBTITLE_BYTES))
    except OSError:
        return []
    except StorageError as error:
        raise read_error(error) from error


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
