"""Around every request: is it for us, is it too large, how long did it take. Errors are one line of JSON."""

from __future__ import annotations

import json
import time
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from indexer.errors import OverloadedError, UnknownMomentError, UsageError, VideoBertSearchError, VideoError
from indexer.serve.metrics import Metrics
from indexer.serve.settings import ServeSettings

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_MAX_SHOWN_CHARS = 80


class JsonAnswer(Response):
    """JSON in ASCII: what could drive a terminal or is no character arrives escaped."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, separators=(",", ":")).encode("ascii")


def error_answer(status: int, error: object) -> JsonAnswer:
    """`{"error": "one line"}`."""
    headers = {"Retry-After": "1"} if status == 503 else None
    return JsonAnswer({"error": " ".join(str(error).split())}, status, headers)


class Guard:
    """Refuses requests for another host and bodies that are too large, and counts every request by route."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self._app = app
        self._settings = settings
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            refusal = self._refusal(dict(scope["headers"]))
            if refusal is not None:
                await refusal(scope, receive, send_and_note)
            else:
                await self._app(scope, self._limited(receive), send_and_note)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.count(route, method, status, time.perf_counter() - started_s)

    def _refusal(self, headers: dict[bytes, bytes]) -> Response | None:
        allowed = self._settings.allowed_hosts
        host = headers.get(b"host", b"").decode("latin-1")
        if allowed is not None and _without_port(host) not in allowed:
            return error_answer(
                421, f"this service answers as {', '.join(allowed)}, got host {host[:_MAX_SHOWN_CHARS]!r}"
            )
        length = headers.get(b"content-length", b"0")
        return self._too_large() if length.isdigit() and int(length) > self._settings.max_body_bytes else None

    def _limited(self, receive: Receive) -> Receive:
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._settings.max_body_bytes:
                raise HTTPException(413, self._too_large_text)
            return message

        return limited

    @property
    def _too_large_text(self) -> str:
        return f"a request must be at most {self._settings.max_body_bytes} bytes"

    def _too_large(self) -> Response:
        return error_answer(413, self._too_large_text)


def _without_port(host: str) -> str:
    name = host[: host.find("]") + 1] if host.startswith("[") else host.split(":")[0]
    return name.lower().rstrip(".")


def answer_errors(app: FastAPI) -> None:
    """Registers what every error becomes."""
    for kind, status in (
        (UnknownMomentError, 404),
        (UsageError, 400),
        (VideoError, 422),
        (OverloadedError, 503),
        (VideoBertSearchError, 500),
    ):
        app.add_exception_handler(kind, _with_status(status))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unexpected)


def _with_status(status: int) -> Any:
    async def handler(request: Request, error: Exception) -> Response:
        return error_answer(status, error)

    return handler


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    texts = {
        404: "there is nothing at this address: see /docs",
        405: f"{request.method} is not for this address: see /docs",
    }
    answer = error_answer(error.status_code, texts.get(error.status_code, error.detail))
    answer.headers.update(error.headers or {})
    return answer


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_answer(400, _fault(error.errors()[0]))


def _fault(fault: dict[str, Any]) -> str:
    """One fault that pydantic found, as a line."""
    name = ".".join(str(part) for part in fault["loc"][1:]) or "the request"
    if fault["type"] == "extra_forbidden":
        return f"there is no parameter {name[:_MAX_SHOWN_CHARS]!r}: see /docs"
    if fault["type"] == "missing":
        return f"{name} is missing: see /docs"
    if fault["type"] == "json_invalid":
        return f"the body is no JSON: {fault.get('ctx', {}).get('error', '')}"
    got = str(fault["input"])[:_MAX_SHOWN_CHARS]
    return f"{name[:_MAX_SHOWN_CHARS]}: {fault['msg'][:1].lower()}{fault['msg'][1:]}, got {got!r}"


async def _unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: its traceback goes to the log, not to the client."""
    return error_answer(500, "the service failed at this request; its log says why")
