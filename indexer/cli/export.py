"""`videobert export`."""

from __future__ import annotations

import typer

from indexer.cli import console
from indexer.cli.app import app


@app.command(epilog="Example: videobert export my-index moments.parquet")
def export(
    index: str = console.IndexArgument,
    out: str = typer.Argument(metavar="OUT.parquet", help="File to write.", show_default=False),
    json: bool = console.JsonOption,
) -> None:
    """Write all moments, with their video's facts, as one plain Parquet file."""
    from indexer.export import export_moments
    from indexer.store.index import IndexStore

    num_moments = export_moments(IndexStore.open(index), out)
    if json:
        console.print_json({"moments": num_moments, "file": out})
    else:
        print(console.printable(f"{num_moments} moments written to {out}"))
