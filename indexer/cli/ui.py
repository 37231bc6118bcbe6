"""`videobert ui`: the Streamlit page."""

from __future__ import annotations

import os
import sys

import typer

from indexer.cli import console
from indexer.cli.app import app
from indexer.errors import UsageError


@app.command(epilog="Example: videobert ui my-index --port 8600")
def ui(
    index: str = console.IndexArgument,
    port: int = typer.Option(8501, min=1, max=65535, help="Port on localhost."),
    no_browser: bool = typer.Option(False, "--no-browser", help="Do not open a browser."),
) -> None:
    """Open the search page on an index. It listens on localhost only."""
    from indexer.store.index import IndexStore

    path = IndexStore.open(index).path.absolute()  # says so now if there is no index
    page = os.path.join(os.path.dirname(_package_file()), "app.py")
    command = [sys.executable, "-m", "streamlit", "run", page]
    command += ["--server.address", "localhost", "--server.port", str(port)]
    command += ["--server.headless", "true" if no_browser else "false", "--browser.gatherUsageStats", "false"]
    console.say(f"the search page is at http://localhost:{port} (Ctrl-C stops it)")
    os.execv(sys.executable, [*command, "--", str(path)])


def _package_file() -> str:
    import importlib.util

    spec = importlib.util.find_spec("search_ui")
    if spec is None or spec.origin is None:
        raise UsageError("the package search_ui is not installed: install videobert-search with its search page")
    return spec.origin
