"""What every verb shares: stdout is data, stderr everything else, errors are one line, exit codes the contract."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer

from indexer.errors import VideoBertSearchError
from model.errors import ModelError

# Typer carries its own copy of Click; this is that copy's root of errors in the arguments.
_ClickError: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")

# What Typer returns in place of a KeyboardInterrupt.
_TYPER_INTERRUPTED = 130

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_SOME_FAILED = 0, 1, 2, 3

JsonOption = typer.Option(False, "--json", help="Machine-readable output on stdout.")
MODEL_HELP = (
    "Model: mini, mini-int8, mini-zero, CHECKPOINT.safetensors, clip:ID_OR_FOLDER (also siglip:, siglip2:) or "
    "timm:NAME_OR_FOLDER."
)
IndexArgument = typer.Argument(metavar="INDEX", help="Folder or s3:// URI of an index.", show_default=False)


def print_json(value: Any) -> None:
    """One JSON value on one line of stdout. What could drive a terminal, control characters and such, is escaped."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if not text.isprintable():
        text = "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
    print(text, flush=True)


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(printable(text), file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Text without control characters, so that a file name cannot drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """A plain table on stdout; as wide as it needs to be where stdout is no terminal.

    Args:
        columns: headings.
        rows: cells; control characters are made visible.
        right: headings of the columns that are aligned to the right.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell.replace("\n", "\r"))) for cell in row))  # a name cannot add a row either
    Console(width=None if sys.stdout.isatty() else 240).print(table)


def clock(seconds: float) -> str:
    """Seconds as 0:07.5, 12:03.0 or 1:02:03.0."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def run(command: Callable[[], Any], *, debug: bool) -> NoReturn:
    """Runs the command line and exits as the contract says: errors of ours are one line on stderr.

    Args:
        command: parses the arguments and does the work; what it returns is the exit code, None is 0.
        debug: show the traceback of errors too.
    """
    try:
        code = command() or EXIT_DONE
        if code == _TYPER_INTERRUPTED:
            _stopped()
    except (typer.Abort, KeyboardInterrupt):
        _stopped()
    except _ClickError as error:
        say(f"error: {_usage_line(error)}")
        code = EXIT_USAGE
    except (VideoBertSearchError, ModelError) as error:
        if debug:
            raise
        say(f"error: {_one_line(error)}")
        code = error.exit_code
    except BrokenPipeError:
        # The reader of stdout (head, less) has gone: nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_DONE
    except (OSError, MemoryError) as error:
        if debug:
            raise
        say(f"error: {_one_line(error)}")
        code = EXIT_FAILED
    sys.exit(code)


@contextmanager
def sigterm_like_ctrl_c() -> Iterator[None]:
    """Within the block SIGTERM stops the run as Ctrl-C does: what has arrived is committed, and the exit code is 1."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stopped() -> NoReturn:
    """Ends the process at once.

    A thread may still be waiting in Ray, and the process aborts when the interpreter ends that thread, or Ray shuts
    down under it. The processes that Ray started die with their driver.
    """
    say("stopped; what was committed is kept, and the same command goes on from there")
    with suppress(OSError):
        sys.stdout.flush()
    os._exit(EXIT_FAILED)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).splitlines())


def _usage_line(error: Any) -> str:
    line = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{line} (try `{context.command_path} --help`)" if context else line
