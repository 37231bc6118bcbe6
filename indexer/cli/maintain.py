"""`videobert remove`, `retry` and `compact`: looking after an index."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import typer

from indexer.cli import console, run_options
from indexer.cli.app import app
from indexer.cli.progress import ProgressDisplay
from indexer.cli.run_report import report_run
from indexer.config import RunConfig
from indexer.errors import SourceError, UsageError

_STAGES = ("read", "open", "decode", "encode", "write")


@app.command(epilog="Example: videobert remove my-index my-videos/old.mp4")
def remove(
    index: str = console.IndexArgument,
    videos: list[str] = typer.Argument(
        metavar="VIDEO", help="Paths or URIs of videos in the index.", show_default=False
    ),
    json: bool = console.JsonOption,
) -> None:
    """Remove videos from an index. All go in one step, or none if one of them is not in the index.

    The files themselves are left alone; a video whose file is still there comes back with the next run of `index`.
    """
    from indexer import schema
    from indexer.store.index import IndexStore

    store = IndexStore.open(index)
    uris = _uris(videos, set(store.ledger.snapshot().videos["uri"].to_pylist()), index)
    store.ledger.remove(schema.video_id(uri) for uri in uris)
    if json:
        console.print_json({"removed": len(uris)})
    else:
        print(f"{len(uris)} removed")


@app.command(epilog="Example: videobert retry my-index")
def retry(
    index: str = console.IndexArgument,
    stage: str | None = typer.Option(
        None, metavar="STAGE", help=f"Only those that failed there: {', '.join(_STAGES)}.", show_default=False
    ),
    address: str | None = run_options.Address,
    decoder: str = run_options.Decoder,
    json: bool = console.JsonOption,
) -> int:
    """Index the failed videos again, wherever they lie, with the settings of the index."""
    if stage not in (None, *_STAGES):
        raise UsageError(f"the stage must be one of {', '.join(_STAGES)}, got {stage!r}")
    from indexer.pipeline import retry_videos

    run = RunConfig(address=address, decoder=decoder)
    with console.sigterm_like_ctrl_c(), ProgressDisplay() as display:
        summary = retry_videos(index, stage=stage, run=run, on_progress=display.update)
    return report_run(summary, index, json=json, decoder=decoder)


@app.command(epilog="Example: videobert compact my-index")
def compact(
    index: str = console.IndexArgument,
    older_than_hours: int = typer.Option(
        24, min=0, metavar="HOURS", help="Drop and delete only what is older; 0 only while nobody uses the index."
    ),
    json: bool = console.JsonOption,
) -> None:
    """Merge small files, drop moments of removed videos, and delete files that nothing needs.

    The index can be searched and added to meanwhile, and holds the same moments after it.
    """
    from indexer.store.compact import compact as compact_store
    from indexer.store.index import IndexStore

    report = compact_store(IndexStore.open(index), older_than_hours=older_than_hours)
    if json:
        console.print_json(report.to_dict())
        return
    print(
        f"{report.files_before} segment files are {report.files_after} now, {report.rows_dropped} rows dropped; "
        f"{report.files_deleted} files deleted, {report.bytes_freed / 1e6:.1f} MB freed"
    )


def _uris(videos: Sequence[str], known: Collection[str], index: str) -> list[str]:
    """The URIs by which the ledger knows these videos, without duplicates.

    Raises:
        UsageError: one is not in the ledger.
    """
    from indexer.ingest.paths import path_to_uri, source_path

    uris = []
    for video in videos:
        try:
            uri = video if video in known else path_to_uri(source_path(video))
        except SourceError:
            uri = video  # a URI that is no path of ours
        if uri not in known:
            raise UsageError(
                f"the video {video!r} is not in the index {index!r}; nothing was removed. "
                "`videobert search --json` prints the names that it knows"
            )
        uris.append(uri)
    return list(dict.fromkeys(uris))
