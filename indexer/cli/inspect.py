"""`videobert info`, `failures` and `verify`: what is in an index, and whether it is sound."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import typer

from indexer.cli import console
from indexer.cli.app import app
from indexer.errors import IndexFormatError

if TYPE_CHECKING:
    from indexer.store.drop import Dropped
    from indexer.store.index import IndexStore

_NAMED = 20


@app.command(epilog="Example: videobert info my-index")
def info(index: str = console.IndexArgument, json: bool = console.JsonOption) -> None:
    """Say what an index holds and how it was made."""
    from indexer.store.index import IndexStore
    from indexer.store.report import describe

    facts = describe(IndexStore.open(index))
    if json:
        console.print_json(facts)
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<{width}}  {_shown(name, value)}")


@app.command(epilog="Example: videobert failures my-index")
def failures(
    index: str = console.IndexArgument,
    out: str | None = typer.Option(
        None, "--out", metavar="FILE.parquet", help="Write them to a Parquet file.", show_default=False
    ),
    json: bool = console.JsonOption,
) -> None:
    """List the videos that could not be indexed, and why."""
    from indexer.store.index import IndexStore
    from indexer.store.report import list_failures, write_failures

    store = IndexStore.open(index)
    if out is not None:
        num_failures = write_failures(store, out)
        if json:
            console.print_json({"failures": num_failures, "file": out})
        else:
            print(f"{num_failures} failures written to {out}")
        return
    rows = list_failures(store)
    if json:
        for row in rows:
            console.print_json(row)
    elif not rows:
        print("no failures")
    else:
        cells = ([row["video"], row["stage"], row["kind"], row["message"], str(row["attempts"])] for row in rows)
        console.print_table(["video", "stage", "kind", "reason", "attempts"], cells, right=["attempts"])


@app.command(epilog="Example: videobert verify my-index")
def verify(
    index: str = console.IndexArgument,
    repair: bool = typer.Option(
        False,
        "--repair",
        help="First take out damaged files of moments, with their videos: the next `index` brings these back. "
        "Rebuild vectors that are missing, damaged or incomplete.",
    ),
    json: bool = console.JsonOption,
) -> int:
    """Check that tables, files and vectors agree. Exit code 1 if they do not."""
    from indexer.store.index import IndexStore
    from indexer.store.verify import verify as find_problems

    store = IndexStore.open(index)
    dropped = _repair(store, index) if repair else None
    problems = find_problems(store)
    if json:
        told = {"sound": not problems, "problems": problems}
        console.print_json(told | ({"dropped": dropped.to_dict()} if dropped else {}))
    elif not problems:
        print("sound: tables, files and vectors agree")
    for problem in problems:
        console.say(f"problem: {problem}")
    return console.EXIT_FAILED if problems else console.EXIT_DONE


def _repair(store: IndexStore, index: str) -> Dropped | None:
    """Says what was done, and returns what was taken out."""
    from indexer.store.drop import drop_damaged
    from indexer.store.verify import repair_vectors

    dropped = None
    with contextlib.suppress(IndexFormatError):  # of the tables: it is among the problems then
        dropped = drop_damaged(store)
        if dropped:
            _say_dropped(dropped, index)
        if repair_vectors(store):
            console.say("the vectors were rebuilt from the tables")
    return dropped


def _say_dropped(dropped: Dropped, index: str) -> None:
    for file in dropped.files:
        console.say(f"damaged file of moments taken out: {file!r}")
    for video in dropped.videos[:_NAMED]:
        console.say(f"video taken out: {video!r}")
    if len(dropped.videos) > _NAMED:
        console.say(f"and {len(dropped.videos) - _NAMED} more; --json names them all")
    console.say(
        f"taken out: damaged files {len(dropped.files)}, videos {len(dropped.videos)}; "
        f"`videobert index SOURCE --into {index}` brings the videos back"
    )


def _shown(name: str, value: Any) -> str:
    if name.endswith("_s") and isinstance(value, float) and math.isfinite(value):
        return console.clock(value)
    if isinstance(value, dict):
        known = {key.replace("_", " "): item for key, item in value.items() if item is not None}
        return ", ".join(f"{key} {_shown(key, item)}" for key, item in known.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
