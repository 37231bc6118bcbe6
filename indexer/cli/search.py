"""`videobert search` and `videobert classify`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from indexer.cli import console, filter_options
from indexer.cli.app import app
from indexer.cli.pandas_free import leave_pandas_out
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
    per_video: int | None = typer.Option(
        None,
        metavar="N",
        help="At most N moments of one video. Without it 3, and more only where other videos have nothing left.",
        show_default=False,
    ),
    show_alike: bool = typer.Option(False, "--show-alike", help="Near-duplicates one by one, not as one moment."),
    queries: str | None = typer.Option(
        None, metavar="FILE", help="Many queries, one a line; - reads stdin. Needs --json.", show_default=False
    ),
    like: str | None = typer.Option(
        None,
        metavar="FILE|SEGMENT_ID",
        help="Instead of a text: an image or video, or a moment of the index.",
        show_default=False,
    ),
    video: str | None = filter_options.Video,
    in_video: str | None = filter_options.InVideo,
    min_duration: float | None = filter_options.MinDuration,
    max_duration: float | None = filter_options.MaxDuration,
    min_height: int | None = filter_options.MinHeight,
    modified_after: str | None = filter_options.ModifiedAfter,
    modified_before: str | None = filter_options.ModifiedBefore,
    indexed_after: str | None = filter_options.IndexedAfter,
    indexed_before: str | None = filter_options.IndexedBefore,
    label: list[str] | None = filter_options.Label,
    speech: bool | None = filter_options.Speech,
    language: list[str] | None = filter_options.Language,
    where: list[str] | None = filter_options.Where,
    metadata: str | None = filter_options.Metadata,
    json: bool = console.JsonOption,
) -> None:
    """Find the moments that fit a text best. "Quoted words" must have been said, -word excludes, begin* is a prefix."""
    leave_pandas_out()
    from indexer.query.diversity import Diversity
    from indexer.query.filters import Filters
    from indexer.query.inputs import check_k

    _require_one_kind(query, queries, like, json)
    check_k(k)
    diversity = Diversity(per_video=per_video, collapse=not show_alike)
    texts = _texts(query, queries)
    filters = Filters(
        video=video,
        in_video=in_video,
        min_duration_s=min_duration,
        max_duration_s=max_duration,
        min_height=min_height,
        modified_after=modified_after,
        modified_before=modified_before,
        indexed_after=indexed_after,
        indexed_before=indexed_before,
        labels=tuple(label or ()),
        has_speech=speech,
        language=tuple(language or ()),
        where=tuple(where or ()),
        metadata=metadata,
    )

    from indexer import VideoIndex

    opened = VideoIndex.open(index)
    if like is not None:
        result = opened.search_like(_example(like), k, where=filters, diversity=diversity)
        _print_result(result, opened.num_segments, json)
    for start in range(0, len(texts), _QUERIES_PER_BATCH):
        batch = texts[start : start + _QUERIES_PER_BATCH]
        for result in opened.search_many(batch, k, where=filters, diversity=diversity):
            _print_result(result, opened.num_segments, json)


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
    leave_pandas_out()
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


def _require_one_kind(query: str | None, queries: str | None, like: str | None, json: bool) -> None:
    if [query, queries, like].count(None) != 2:
        raise UsageError(
            "give either a query, --queries FILE or --like FILE|SEGMENT_ID, "
            'for example: videobert search my-index "a dog"'
        )
    if queries is not None and not json:
        raise UsageError("--queries prints one JSON object a line: add --json")


def _texts(query: str | None, queries: str | None) -> list[str]:
    """All that is asked in words, checked before the index is opened."""
    from indexer.query.inputs import check_query
    from indexer.query.syntax import parse_query

    asked = _read_lines(queries) if queries is not None else [query] if query is not None else []
    texts = [check_query(text) for text in asked]
    for text in texts:
        parse_query(text)
    return texts


def _example(like: str) -> int | str:
    """A moment's id or a file's name."""
    return int(like) if like.isdecimal() and not Path(like).exists() else like


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


def _print_result(result: SearchResult, num_segments: int, json: bool) -> None:
    if json:
        console.print_json(result.to_dict())
    else:
        _print_moments(result, num_segments)


def _print_moments(result: SearchResult, num_segments: int) -> None:
    from indexer.query.calibration import percent

    if not result.results:
        console.say("the index holds no moments yet" if not num_segments else "nothing found")
        return
    if not result.matched:
        console.say("no confident match; these come nearest:")
    cells = (
        [
            str(moment.rank),
            _short(moment.video) + (f" (+{moment.num_alike} alike)" if moment.num_alike else ""),
            f"{console.clock(moment.start_s)}–{console.clock(moment.end_s)}",
            f"{moment.score:.3f}",
            percent(moment.confidence),
            ", ".join(label.label for label in moment.labels[:3])
            + (f' "{moment.snippet or moment.transcript}"' if moment.snippet or moment.transcript else ""),
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
