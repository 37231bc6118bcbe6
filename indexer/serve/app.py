"""The FastAPI application: which addresses there are. The same one is run by uvicorn and by Ray Serve."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Body, FastAPI, Path, Query, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from indexer import __version__
from indexer.query.results import Moment, SearchResult
from indexer.serve import answers
from indexer.serve.docs_page import docs_page
from indexer.serve.guard import Guard, JsonAnswer, answer_errors, error_answer
from indexer.serve.metrics import CONTENT_TYPE, Metrics, as_text
from indexer.serve.questions import ClassifyParameters, SearchParameters
from indexer.serve.ranges import ranged_answer
from indexer.serve.service import Service
from indexer.serve.siblings import Exchange, Known, Report, oldest, summed

SegmentId = Annotated[int, Path(ge=0, le=2**63 - 1, description="`segment_id` of a result.")]
Second = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]
# How often replicas tell each other what they have counted, and how long one waits for what the others say.
_REPORT_S, _EXCHANGE_S = 1.0, 2.0
# A moment's picture changes only when its video is indexed again.
_KEEP_FOR_A_WHILE = {"Cache-Control": "private, max-age=300"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": answers.ErrorAnswer, "description": "Something about the request is wrong"},
    503: {"model": answers.ErrorAnswer, "description": "Too many requests of this kind; try again in a second"},
}
_OF_A_MOMENT: dict[int | str, dict[str, Any]] = {
    404: {"model": answers.ErrorAnswer, "description": "There is no such moment, or it has no picture"}
}


def build_app(service: Service, replica: str = "", exchange: Exchange | None = None) -> FastAPI:
    """The application that asks a service.

    Args:
        service: not running yet.
        replica: name of this process among several that answer alike.
        exchange: tells them what this one counted, and what they did; None: there are no others.
    """
    metrics = Metrics(service)

    def report() -> Report:
        return Report(replica, metrics.collect(), _health(service))

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running(), _reporting(report, exchange):
            yield

    app = FastAPI(
        title="VideoBERT Search",
        version=__version__,
        description="Find and classify moments of an indexed video collection.",
        docs_url=None,  # FastAPI's own page loads scripts from another host
        redoc_url=None,
        lifespan=lifespan,
        default_response_class=JsonAnswer,
        separate_input_output_schemas=False,
    )
    answer_errors(app)
    app.add_middleware(Guard, settings=service.settings, metrics=metrics)
    _add_questions(app, service)
    _add_moments(app, service)
    _add_facts(app, report, exchange)
    description = _without_unused_errors(app.openapi())
    app.openapi = lambda: description  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _reporting(report: Callable[[], Report], exchange: Exchange | None) -> AsyncIterator[None]:
    """Tells the others every second, as long as the block lasts."""

    async def keep_reporting(exchange: Exchange) -> None:
        while True:
            with contextlib.suppress(Exception):  # whatever it is, the next time may go well
                await exchange(report())
            await asyncio.sleep(_REPORT_S)

    task = None if exchange is None else asyncio.create_task(keep_reporting(exchange))
    try:
        yield
    finally:
        if task is not None:
            task.cancel()


def _without_unused_errors(description: dict[str, Any]) -> dict[str, Any]:
    """FastAPI promises its own answer to a wrong parameter, 422, for every address; ours is 400."""
    for operations in description["paths"].values():
        for operation in operations.values():
            if operation["responses"].get("422", {}).get("description") == "Validation Error":
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        description["components"]["schemas"].pop(name, None)
    return description


def _add_questions(app: FastAPI, service: Service) -> None:
    async def search(asked: SearchParameters) -> Response:
        result = await service.search(asked.question(service.settings))
        return JsonAnswer(_with_links(result) if asked.links else result.to_dict())

    async def classify(asked: ClassifyParameters) -> Response:
        where = asked.filters(service.settings)
        found = await service.classify(asked.names(service.settings), where, asked.start, asked.limit)
        results = [moment.to_dict() for moment in found]
        return JsonAnswer({"moments": found.num_moments, "start": asked.start, "results": results})

    @app.get("/search", summary="Find moments", responses={200: {"model": answers.SearchAnswer}, **_ERRORS})
    async def get_search(asked: Annotated[SearchParameters, Query()]) -> Response:
        return await search(asked)

    @app.post("/search", summary="Find moments", responses={200: {"model": answers.SearchAnswer}, **_ERRORS})
    async def post_search(asked: Annotated[SearchParameters, Body()]) -> Response:
        return await search(asked)

    @app.get("/classify", summary="Score labels", responses={200: {"model": answers.ClassifyAnswer}, **_ERRORS})
    async def get_classify(asked: Annotated[ClassifyParameters, Query()]) -> Response:
        return await classify(asked)

    @app.post("/classify", summary="Score labels", responses={200: {"model": answers.ClassifyAnswer}, **_ERRORS})
    async def post_classify(asked: Annotated[ClassifyParameters, Body()]) -> Response:
        return await classify(asked)


def _with_links(result: SearchResult) -> dict[str, Any]:
    values = result.to_dict()
    for moment, row in zip(result.results, values["results"], strict=True):
        row |= {"thumbnail": f"/moments/{moment.segment_id}/thumbnail.jpg", "clip": _clip_address(moment)}
    return values


def _clip_address(moment: Moment) -> str:
    span = urlencode({"start_s": round(moment.start_s, 3), "end_s": round(moment.end_s, 3)})
    return f"/moments/{moment.segment_id}/clip.mp4?{span}"


def _add_moments(app: FastAPI, service: Service) -> None:
    jpeg: dict[str, Any] = {"content": {"image/jpeg": {}}, "description": "The picture"}
    mp4: dict[str, Any] = {"content": {"video/mp4": {}}, "description": "The clip"}
    part: dict[str, Any] = {"content": {"video/mp4": {}}, "description": "The part of it that a Range header names"}

    @app.get(
        "/moments/{segment_id}/thumbnail.jpg",
        summary="Picture of a moment",
        response_class=Response,
        responses={200: jpeg, **_OF_A_MOMENT, **_ERRORS},
    )
    async def thumbnail(segment_id: SegmentId) -> Response:
        picture = await service.thumbnail(segment_id)
        if picture is None:
            return error_answer(404, f"the moment {segment_id} has no picture")
        return Response(picture, media_type="image/jpeg", headers=_KEEP_FOR_A_WHILE)

    @app.head("/moments/{segment_id}/clip.mp4", include_in_schema=False)
    @app.get(
        "/moments/{segment_id}/clip.mp4",
        summary="A moment as a short clip",
        response_class=Response,
        responses={
            200: mp4,
            206: part,
            416: {"description": "It is not as long as that"},
            422: {"model": answers.ErrorAnswer, "description": "The video cannot be read any more"},
            **_OF_A_MOMENT,
            **_ERRORS,
        },
    )
    async def clip(request: Request, segment_id: SegmentId, start_s: Second = None, end_s: Second = None) -> Response:
        data, tag = await service.clip(segment_id, start_s, end_s)
        return ranged_answer(data, tag, request.headers, "video/mp4", _KEEP_FOR_A_WHILE)


def _health(service: Service) -> dict[str, Any]:
    index = service.index
    return {
        "ready": True,
        "version": index.snapshot.ledger.version,
        "videos": index.num_videos,
        "moments": index.num_segments,
        "refresh_error": service.refresh_error,
    }


def _add_facts(app: FastAPI, report: Callable[[], Report], exchange: Exchange | None) -> None:
    async def of_all() -> Sequence[Known]:
        """What all replicas say; where the others cannot be asked, this one speaks for itself."""
        own = report()
        if exchange is not None:
            with contextlib.suppress(Exception):
                return await asyncio.wait_for(exchange(own), _EXCHANGE_S)
        return [Known(own, is_alive=True)]

    @app.get("/health/live", summary="Is the process there?")
    async def live() -> Response:
        return JsonAnswer({"alive": True})

    @app.get("/health/ready", summary="Which version is asked?", responses={200: {"model": answers.HealthAnswer}})
    async def ready() -> Response:
        return JsonAnswer(oldest(await of_all()))

    @app.get("/metrics", summary="For Prometheus", response_class=Response)
    async def prometheus() -> Response:
        known = await of_all()
        metrics = known[0].report.metrics if exchange is None else summed(known)
        return Response(as_text(metrics), headers={"Content-Type": CONTENT_TYPE})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        policy = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"
        return HTMLResponse(docs_page(app.openapi()), headers={"Content-Security-Policy": policy})

    @app.get("/", include_in_schema=False)
    async def home() -> Response:
        return RedirectResponse("/docs")
