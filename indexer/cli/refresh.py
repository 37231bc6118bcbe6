"""`videobert refresh`: another model for an index, without decoding."""

from __future__ import annotations

import typer

from indexer.cli import console, run_options
from indexer.cli.app import app


@app.command(epilog="Example: videobert refresh my-index --model my-model.safetensors")
def refresh(
    index: str = console.IndexArgument,
    model: str = typer.Option(
        ..., help="Preset or checkpoint with the frame encoder of the index; mini and mini-int8 go for each other."
    ),
    device: str = run_options.Device,
    json: bool = console.JsonOption,
) -> None:
    """Encode an index anew with another model, from the frame features that it stores.

    No video is decoded. Searches go on meanwhile, and see the old model or the new one, never both.
    """
    from rich.console import Console
    from rich.progress import Progress, TimeRemainingColumn

    from indexer.refresh import refresh_index

    columns = Progress.get_default_columns()[:-1]
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("moments", total=None)
        summary = refresh_index(
            index,
            model=model,
            device=device,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if json:
        console.print_json(summary.to_dict())
        return
    print(
        f"{summary.segments} moments of {summary.videos} videos ({console.clock(summary.video_s)}) "
        f"encoded with {summary.model} in {summary.wall_s:.1f} s"
    )
