"""The service in this process, by uvicorn: nothing to start, one copy of the index in memory."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from indexer.errors import UsageError
from indexer.serve.app import build_app
from indexer.serve.service import Service

# How long requests in flight may still take when the service is stopped, seconds: a little more than a clip.
GRACE_S = 65
_BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """A socket for the service, before anything else is loaded.

    Args:
        port: 0 takes one that is free.

    Raises:
        UsageError: the port is taken, or the host is none of this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"{host!r} is no address to listen on: {error.strerror}; the default is 127.0.0.1") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"port {port} of {host!r} cannot be listened on: {error.strerror}; choose another with --port"
        ) from error
    return listener


def serve_here(service: Service, listener: socket.socket, on_ready: Callable[[], None] = lambda: None) -> None:
    """Answers requests until SIGTERM or Ctrl-C; then takes no more, and returns when those in flight are answered."""
    config = uvicorn.Config(
        build_app(service),
        access_log=False,
        backlog=_BACKLOG,
        http="h11",  # the parser that limits the size of addresses and headers, to 64 KiB
        log_config=None,
        loop="asyncio",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )
    server = _Server(config, on_ready)
    with listener, _quiet_signals():
        server.run([listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    """uvicorn sends itself the signals again when it is done; a stop that was asked for is no failure."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
