"""`videobert info`, `failures` and `verify`: what is in an index, and whether it is sound."""

from __future__ import annotations

import math
from typing import Any

from indexer.cli import console
from indexer.cli.app import app


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
def failures(index: str = console.IndexArgument, json: bool = console.JsonOption) -> None:
    """List the videos that could not be indexed, and why."""
    from indexer.store.index import IndexStore
    from indexer.store.report import list_failures

    rows = list_failures(IndexStore.open(index))
    if json:
        for row in rows:
            console.print_json(row)
    elif not rows:
        print("no failures")
    else:
        cells = ([row["video"], row["stage"], row["message"], str(row["attempts"])] for row in rows)
        console.print_table(["video", "stage", "reason", "attempts"], cells, right=["attempts"])


@app.command(epilog="Example: videobert verify my-index")
def verify(index: str = console.IndexArgument, json: bool = console.JsonOption) -> int:
    """Check that tables, files and vectors agree. Exit code 1 if they do not."""
    from indexer.store.index import IndexStore
    from indexer.store.verify import verify as find_problems

    problems = find_problems(IndexStore.open(index))
    if json:
        console.print_json({"sound": not problems, "problems": problems})
    elif not problems:
        print("sound: tables, files and vectors agree")
    for problem in problems:
        console.say(f"problem: {problem}")
    return console.EXIT_FAILED if problems else console.EXIT_DONE


def _shown(name: str, value: Any) -> str:
    if name.endswith("_s") and isinstance(value, float) and math.isfinite(value):
        return console.clock(value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
