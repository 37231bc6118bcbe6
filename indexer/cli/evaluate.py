"""`videobert evaluate`."""

from __future__ import annotations

import typer

from indexer.cli import console
from indexer.cli.app import app

_RIGHT = ("value", "95 % interval", "chance", "videos", "predicted", "average precision", "precision", "recall")


@app.command(epilog="Example: videobert evaluate my-index captions.tsv --out report")
def evaluate(
    index: str = console.IndexArgument,
    data: str = typer.Argument(
        metavar="DATA",
        help="A .tsv, .csv or .parquet with the columns video and caption (start_s, end_s) or label.",
        show_default=False,
    ),
    head: str | None = typer.Option(
        None, metavar="FILE", help="A trained classification head, to measure on the labels.", show_default=False
    ),
    out: str | None = typer.Option(
        None, metavar="FOLDER", help="Write metrics.json, report.md and queries.parquet.", show_default=False
    ),
    json: bool = console.JsonOption,
) -> None:
    """Measure how well an index finds what captions describe, or classifies what labels name."""
    from indexer.evaluate.evaluation import evaluate_index
    from indexer.evaluate.report import (
        CLASS_COLUMNS,
        COLUMNS,
        class_rows_of,
        notes_of,
        rows_of,
        to_dict,
        write_files,
    )
    from indexer.query.video_index import VideoIndex

    evaluation = evaluate_index(VideoIndex.open(index), data, head)
    if json:
        console.print_json(to_dict(evaluation))
    else:
        console.print_table(COLUMNS, rows_of(evaluation), right=_RIGHT)
        for task in evaluation.classes:
            print(f"\n{task}")
            console.print_table(CLASS_COLUMNS, class_rows_of(evaluation, task), right=_RIGHT)
    for note in notes_of(evaluation):
        console.say(note)
    if out is not None:
        console.say(f"written: {', '.join(write_files(evaluation, out))}")
