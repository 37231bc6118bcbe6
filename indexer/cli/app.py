"""The command line: which verbs there are. Each verb's file is thin; the work is done in the packages below."""

from __future__ import annotations

import sys

import typer

from indexer.cli import console

app = typer.Typer(
    name="videobert",
    help="Find, classify and ask about any moment of any video in plain text.",
    epilog="Start with: videobert index my-videos --into my-index",
    add_completion=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _options(
    context: typer.Context,
    debug: bool = typer.Option(False, "--debug", help="Show the full traceback of an error."),
) -> None:
    """Options before the verb; `--debug` is read in `main`."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def register_verbs() -> None:
    """Loads the files of the verbs, each of which adds its own to `app`."""
    from indexer.cli import (  # noqa: F401 - each registers its verbs
        compress,
        evaluate,
        export,
        index,
        inspect,
        maintain,
        refresh,
        search,
        serve,
        train,
        ui,
    )


def main() -> None:
    """Entry point of `videobert` and `python -m indexer`."""
    register_verbs()
    # Typer's own handling would print several lines and, for errors of ours, a traceback.
    console.run(lambda: app(standalone_mode=False), debug="--debug" in sys.argv)
