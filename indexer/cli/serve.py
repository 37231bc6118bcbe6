"""`videobert serve`: the index as a web service."""

from __future__ import annotations

import ipaddress
import logging
import signal
import sys
import time

import typer

from indexer.cli import console
from indexer.cli.app import app
from indexer.errors import UsageError


@app.command(epilog="Example: videobert serve my-index --port 8000")
def serve(
    index: str = console.IndexArgument,
    port: int = typer.Option(8000, min=0, max=65535, help="Port; 0 takes a free one."),
    host: str = typer.Option("127.0.0.1", help="Address to listen on. There is no login: see docs/serve.md."),
    allow_host: list[str] | None = typer.Option(
        None,
        metavar="NAME",
        help="Another name under which it may be asked, as that of a proxy. Repeatable.",
        show_default=False,
    ),
    metadata: str | None = typer.Option(
        None,
        metavar="FILE",
        help="Your own .parquet, .csv or .tsv table, whose columns requests may filter by.",
        show_default=False,
    ),
    replicas: int = typer.Option(1, min=1, help="Processes; more than one run on Ray Serve."),
    address: str | None = typer.Option(
        None, metavar="RAY", help='Ray cluster for the replicas, e.g. "auto".', show_default=False
    ),
) -> None:
    """Answer searches over HTTP: JSON, thumbnails, clips, metrics; /docs lists the addresses.

    One replica runs in this process; more, or --address, run on Ray Serve. New commits are seen within seconds. Ctrl-C
    or SIGTERM lets requests in flight finish.
    """
    from indexer.serve.here import bind
    from indexer.serve.settings import ServeSettings
    from indexer.store.index import IndexStore

    path = str(IndexStore.open(index).path.absolute())  # says so now if there is no index
    settings = ServeSettings(metadata=_absolute(metadata), allowed_hosts=_allowed_hosts(host, allow_host or []))
    logging.basicConfig(stream=sys.stderr, format="%(message)s", level=logging.WARNING)
    logging.getLogger("indexer.serve").setLevel(logging.INFO)
    listener = bind(host, port)
    port = listener.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host

    def on_ready() -> None:
        console.say(f"serving {path} at http://{shown}:{port}, see /docs (Ctrl-C stops it)")

    if replicas == 1 and address is None:
        from indexer.serve.here import serve_here
        from indexer.serve.service import Service

        serve_here(Service(path, settings), listener, on_ready)
    else:
        listener.close()  # it was free
        from indexer.serve.ray_replicas import serve_on_ray

        def wait() -> None:
            on_ready()
            _wait_for_a_signal()

        with console.sigterm_like_ctrl_c():
            serve_on_ray(path, settings, host=host, port=port, num_replicas=replicas, address=address, wait=wait)
    console.say("stopped")


def _allowed_hosts(host: str, others: list[str]) -> tuple[str, ...] | None:
    """On localhost only its own names; elsewhere any, unless some are named."""
    own = ("localhost", "127.0.0.1", "[::1]") if _is_loopback(host) else ()
    return (*own, *(name.lower() for name in others)) if own or others else None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _absolute(metadata: str | None) -> str | None:
    """The replicas may run in another folder."""
    from indexer.storage import location

    if metadata is None:
        return None
    path = location(metadata).absolute()
    if not path.is_file():
        raise UsageError(f"there is no metadata table {metadata!r}: name a .parquet, .csv or .tsv file")
    return str(path)


def _wait_for_a_signal() -> None:
    """Returns at Ctrl-C or SIGTERM."""
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stopped.append(received))
    while not stopped:
        time.sleep(0.1)
