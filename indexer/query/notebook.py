"""Answers as HTML for a notebook: one card a moment, its picture inline. All text is escaped, nothing is loaded."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from indexer.query.calibration import percent
from indexer.query.results import Classification, Label, SearchResult

if TYPE_CHECKING:
    from indexer.store.snapshot import Snapshot

# More pictures than this make a notebook slow to open and save.
_MAX_CARDS = 50
_NUM_LABELS = 3
_MAX_QUOTE_CHARS = 300
_MARKED = re.compile(r"\*\*(.+?)\*\*")
_GRID = "display:flex;flex-wrap:wrap;gap:12px"
_CARD = "width:200px;font-size:12px;overflow-wrap:anywhere"
_PICTURE = "width:200px;height:120px;object-fit:contain;background:#8883"


def search_html(result: SearchResult) -> str:
    """A search result as cards, best first."""
    verdict = (
        "" if result.matched else ": no confident match; these come nearest" if result.results else ": nothing found"
    )
    cards = [
        (
            moment.segment_id,
            moment.video,
            (moment.start_s, moment.end_s),
            f"{percent(moment.confidence)} sure · score {moment.score:.3f}"
            + (f" · {moment.num_alike} more alike" if moment.num_alike else ""),
            _labels(moment.labels) + _quote(moment.snippet, moment.transcript),
        )
        for moment in result.results[:_MAX_CARDS]
    ]
    return _page(f"{result.query}{verdict}", cards, len(result.results), result.snapshot)


def classification_html(moments: Classification) -> str:
    """Classified moments as cards, by video and time."""
    cards = [
        (moment.segment_id, moment.video, (moment.start_s, moment.end_s), "", _labels(moment.ranked))
        for moment in moments[:_MAX_CARDS]
    ]
    part = f"{len(moments):,} of " if len(moments) < moments.num_moments else ""
    return _page(f"{part}{moments.num_moments:,} moments", cards, len(moments), moments.snapshot)


_Card = tuple[int, str, tuple[float, float], str, str]


def _page(title: str, cards: Sequence[_Card], num_moments: int, snapshot: Snapshot | None) -> str:
    pictures = _pictures([card[0] for card in cards], snapshot)
    shown = "".join(_card(card, pictures.get(card[0])) for card in cards)
    left_out = num_moments - len(cards)
    more = f"<p>… and {left_out:,} more: see <code>to_pandas()</code></p>" if left_out else ""
    return f'<div><p><b>{_text(title)}</b></p><div style="{_GRID}">{shown}</div>{more}</div>'


def _card(card: _Card, picture: bytes | None) -> str:
    _, video, (start_s, end_s), sure, rest = card
    data = "" if picture is None else f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    image = f'<img style="{_PICTURE}" src="{data}" alt="">' if data else f'<div style="{_PICTURE}"></div>'
    name = video.rstrip("/").rsplit("/", 1)[-1]
    lines = [f'<b title="{_text(video)}">{_text(name)}</b>', f"{start_s:.1f}–{end_s:.1f} s", _text(sure), rest]
    return f'<div style="{_CARD}">{image}<br>{"<br>".join(line for line in lines if line)}</div>'


def _pictures(segment_ids: Sequence[int], snapshot: Snapshot | None) -> dict[int, bytes]:
    """Thumbnails of those moments that have one."""
    if snapshot is None:
        return {}
    rows = [row for segment_id in segment_ids if (row := snapshot.row_of(segment_id)) is not None]
    table = snapshot.read(rows, ["segment_id", "thumbnail"])
    pairs = zip(table["segment_id"].to_pylist(), table["thumbnail"].to_pylist(), strict=True)
    return {segment_id: picture for segment_id, picture in pairs if picture}


def _labels(labels: Iterable[Label]) -> str:
    return ", ".join(f"{_text(one.label)} {_text(percent(one.score))}" for one in list(labels)[:_NUM_LABELS])


def _quote(snippet: str | None, transcript: str | None) -> str:
    said = _MARKED.sub(r"<mark>\1</mark>", _text((snippet or transcript or "")[:_MAX_QUOTE_CHARS]))
    return f"<br>“{said}”" if said else ""


def _text(text: str) -> str:
    """Escaped, with what steers, hides or reorders text made visible."""
    return html.escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))
