"""`videobert search` and `videobert classify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from indexer.cli import console
from indexer.cli.app import app
from indexer.errors import UsageError

if TYPE_CHECKING:
    from indexer.query.results import ClassifiedMoment, SearchResult

# Queries encoded and searched together: enough for speed, little memory.
_QUERIES_PER_BATCH = 64


@app.command(epilog='Example: videobert search my-index "a dog on a skateboard" -k 5')
def search(
    index: str = console.IndexArgument,
    query: str | None = typer.Argument(None, help="What the moment shows.", show_default=False),
    k: int = typer.Option(10, "-k", help="Moments wanted, 1 to 1000."),
    queries: str | None = typer.Option(
        None, metavar="FILE", help="Many queries, one a line; - reads stdin. Needs --json.", show_default=False
    ),
    json: bool = console.JsonOption,
) -> None:
    """Find the moments that fit a text best."""
    from indexer.query.inputs import check_k, check_query

    if (query is None) == (queries is None):
        raise UsageError('give either a query or --queries FILE, for example: videobert search my-index "a dog"')
    if queries is not None and not json:
        raise UsageError("--queries prints one JSON object a line: add --json")
    check_k(k)
    texts = [check_query(text) for text in (_read_lines(queries) if queries is not None else [query or ""])]

    from indexer import VideoIndex

    opened = VideoIndex.open(index)
    for start in range(0, len(texts), _QUERIES_PER_BATCH):
        for result in opened.search_many(texts[start : start + _QUERIES_PER_BATCH], k):
            if json:
                console.print_json(result.to_dict())
            else:
                _print_moments(result, opened.num_segments)


@app.command(epilog='Example: videobert classify my-index --labels "cooking,surfing,yoga"')
def classify(
    target: str = typer.Argument(
        metavar="INDEX|VIDEO", help="Folder of an index, or a video file.", show_default=False
    ),
    labels: str | None = typer.Option(None, help="Labels to choose from, separated by commas.", show_default=False),
    head: str | None = typer.Option(
        None, metavar="FILE", help="Head that `videobert train` wrote, instead of --labels.", show_default=False
    ),
    model: str = typer.Option("mini", help=f"{console.MODEL_HELP} For a video file."),
    json: bool = console.JsonOption,
) -> None:
    """Score every moment against any list of labels, without training; none of these is a possible answer."""
    if (labels is None) == (head is None):
        raise UsageError('give either --labels "cooking,surfing" or --head FILE')
    classified = _by_head(target, head, model) if head is not None else _by_labels(target, labels or "", model)
    if json:
        for moment in classified:
            console.print_json(moment.to_dict())
    else:
        _print_classified(classified)


def _by_labels(target: str, labels: str, model: str) -> list[ClassifiedMoment]:
    from indexer.query.inputs import check_labels
    from indexer.storage import location

    names = check_labels(labels.split(","))
    if location(target).is_file():
        from indexer.query.single_video import classify_video

        return classify_video(target, names, model)
    from indexer import VideoIndex

    return VideoIndex.open(target).classify(names)


def _by_head(target: str, head: str, model: str) -> list[ClassifiedMoment]:
    from indexer.query.heads import classify_index, classify_video_by_head
    from indexer.storage import location

    if location(target).is_file():
        return classify_video_by_head(target, head, model)
    from indexer import VideoIndex

    return classify_index(VideoIndex.open(target), head)


def _read_lines(path: str) -> list[str]:
    """Non-empty lines of a file, or of stdin for "-"."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the queries cannot be read from {path!r}: {error}; it must be a UTF-8 text file") from error
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise UsageError(f"there are no queries in {path!r}: write one a line")
    return lines


def _print_moments(result: SearchResult, num_segments: int) -> None:
    if not result.results:
        console.say("the index holds no moments yet" if not num_segments else "nothing found")
        return
    if not result.matched:
        console.say("no confident match; these come nearest:")
    cells = (
        [
            str(moment.rank),
            _short(moment.video),
            f"{console.clock(moment.start_s)}–{console.clock(moment.end_s)}",
            f"{moment.score:.3f}",
            f"{moment.confidence:.0%}",
            ", ".join(label.label for label in moment.labels[:3])
            + (f' "{moment.transcript}"' if moment.transcript else ""),
        ]
        for moment in result.results
    )
    console.print_table(["", "video", "moment", "score", "sure", "seen"], cells, right=["", "score", "sure"])


def _print_classified(moments: Sequence[ClassifiedMoment]) -> None:
    cells = (
        [
            _short(moment.video),
            f"{console.clock(moment.start_s)}–{console.clock(moment.end_s)}",
            ", ".join(f"{label.label} {label.score:.0%}" for label in moment.ranked[:4]),
        ]
        for moment in moments
    )
    console.print_table(["video", "moment", "labels"], cells)


def _short(uri: str) -> str:
    """The last two parts of a path: what tells videos apart on a screen."""
    return "/".join(Path(uri).parts[-2:])
