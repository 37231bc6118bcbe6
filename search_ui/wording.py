"""How things are said on the page: times, names, confidences. Nothing here shows anything."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from indexer.query.calibration import MATCH_CONFIDENCE, percent

_PUNCTUATION = re.compile(r"([!-/:-@\[-`{-~])")
_ESCAPED_BOLD = re.compile(r"\\\*\\\*(.+?)\\\*\\\*")
_STRONG, _POSSIBLE = 0.95, 0.5


def plain(text: str) -> str:
    """One line that can be sent to a browser: characters that steer, hide or reorder text become �."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in " ".join(text.split()))


def escaped(text: str) -> str:
    """`plain` text for a place where Markdown is read: it comes out as it is."""
    return _PUNCTUATION.sub(r"\\\1", plain(text))


def highlighted(snippet: str) -> str:
    """Markdown of a snippet: what stands in **asterisks** is bold, all else comes out as it is."""
    return _ESCAPED_BOLD.sub(r"**\1**", escaped(snippet))


def file_name(uri: str) -> str:
    """Last part of a path or URI."""
    return plain(uri.rstrip("/").rsplit("/", 1)[-1]) or "(no name)"


def span(start_s: float, end_s: float) -> str:
    """`0:07–0:10`: whole seconds that enclose the moment."""
    return f"{_clock(math.floor(start_s))}–{_clock(math.ceil(end_s))}"


def _clock(seconds: int) -> str:
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def amount(number: int, noun: str) -> str:
    """`1 video`, `1,234 videos`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def length(seconds: float) -> str:
    """A total: `48 s`, `5 min`, `3.4 hours`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} hours"


def confidence_badge(confidence: float) -> str:
    """Markdown of a coloured badge that says in words how sure a hit is."""
    if confidence >= _STRONG:
        words, colour = "Strong match", "green"
    elif confidence >= MATCH_CONFIDENCE:
        words, colour = "Likely match", "blue"
    elif confidence >= _POSSIBLE:
        words, colour = "Possible", "orange"
    else:
        words, colour = "Weak", "gray"
    return f":{colour}-badge[{words} {escaped(percent(confidence))}]"


def label_chips(labels: Iterable[tuple[str, float]]) -> str:
    """Markdown of one grey chip a label: `Persian cat 54%`."""
    return " ".join(f":gray-badge[{escaped(label)} {escaped(percent(score))}]" for label, score in labels)
