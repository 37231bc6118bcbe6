"""A proxy in front of an S3 server that counts, and breaks what a test wants broken."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLESECRET"
_ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'


@dataclass(frozen=True)
class Request:
    """One that has arrived: `key` is the path below the bucket, `num_bytes` the length of the body sent back."""

    method: str
    bucket: str
    key: str
    query: str
    range: str | None
    num_bytes: int


@dataclass(frozen=True)
class Fault:
    """What is sent instead of the answer.

    Attributes:
        status, code: an error in S3's form; with status 0 the connection is reset.
        after_bytes: the true answer is sent up to here, then the connection is reset.
        after_effect: the request is passed on first, so that only its answer is lost.
    """

    status: int = 0
    code: str = ""
    after_bytes: int | None = None
    after_effect: bool = False


@dataclass
class S3Proxy:
    """Runs in threads of this process.

    Attributes:
        requests: what has arrived and was answered, in order.
        fault: asked about every request (method, key, number of this request for this key); None lets it pass.
    """

    upstream_port: int
    requests: list[Request] = field(default_factory=list)
    num_faults: int = 0
    fault: Callable[[str, str, int], Fault | None] = lambda method, key, nth: None

    def __post_init__(self) -> None:
        proxy = self

        class Handler(_Handler):
            state = proxy

        # The server under test checks and writes in two steps: two conditional puts at once would both succeed.
        self.writing = threading.Lock()
        self.seen: dict[tuple[str, str], int] = {}
        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        """Forgets what has been counted, and breaks nothing any more."""
        self.requests.clear()
        self.seen.clear()
        self.num_faults = 0
        self.fault = lambda method, key, nth: None

    def num_bytes(self, key: str) -> int:
        """Bytes of an object that have been sent."""
        return sum(request.num_bytes for request in self.requests if request.method == "GET" and request.key == key)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # the default of 5 would refuse what comes in at once
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or an answer in two packets waits 40 ms for the client to acknowledge the first
    state: S3Proxy

    def log_message(self, *_: Any) -> None:
        """No log: the tests read `requests`."""

    def do_GET(self) -> None:
        state = self.state
        path, _, query = self.path.partition("?")
        bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
        body = self._body()
        state.seen[self.command, key] = nth = state.seen.get((self.command, key), 0) + 1
        fault = state.fault(self.command, key, nth)
        state.num_faults += fault is not None
        if fault is not None and not fault.after_effect and fault.after_bytes is None:
            self._send_fault(fault)
            return
        status, headers, answer = self._forward(body)
        if fault is not None:
            if fault.after_bytes is None:
                self._send_fault(fault)
            else:
                length = int(headers.get("content-length", len(answer)))
                self._send(status, headers, answer, length, cut_at=fault.after_bytes)
            return
        state.requests.append(Request(self.command, bucket, key, query, self.headers.get("Range"), len(answer)))
        self._send(status, headers, answer, int(headers.get("content-length", len(answer))))

    do_PUT = do_POST = do_DELETE = do_HEAD = do_GET

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.state.upstream_port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        try:
            if self.command in ("PUT", "POST"):
                with self.state.writing:
                    connection.request(self.command, self.path, body, headers)
                    response = connection.getresponse()
                    answer = response.read()
            else:
                connection.request(self.command, self.path, body or None, headers)
                response = connection.getresponse()
                answer = response.read()
        finally:
            connection.close()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, answer

    def _send(self, status: int, headers: dict[str, str], body: bytes, length: int, cut_at: int | None = None) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body[:cut_at])
        if cut_at is not None:
            self._break_off()

    def _send_fault(self, fault: Fault) -> None:
        if not fault.status:
            self._break_off()
            return
        body = b"" if self.command == "HEAD" else _ERROR.format(code=fault.code).encode()
        self._send(fault.status, {"content-type": "application/xml"}, body, len(body))

    def _break_off(self) -> None:
        """Closes with a reset, as a server that dies does."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
        self.rfile.close()
