"""The service: what answers at which address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recbole_stream.errors import InputError
from recbole_stream.serving.batching import Batcher
from recbole_stream.serving.recommender import Recommender
from recbole_stream.serving.schema import Answer, Busy, Item, Limits, Problem, Question
from recbole_stream.serving.search import Titles

__all__ = ["app_of", "make_app"]

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
# the page is one file and talks to nobody but this service
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
_RETRY = {"Retry-After": "1"}
_SENTENCES = {
    400: "The body cannot be read: send JSON as /docs shows it.",
    404: "There is nothing at this address: see /docs.",
    405: "This address does not answer this method: see /docs.",
}

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


class Measures:
    """What ``/metrics`` tells, in the names of Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        named: dict[str, Any] = {"namespace": "recbole_stream", "registry": self.registry}
        self.requests = Counter("requests", "Answered requests.", ("path", "status"), **named)
        self.seconds = Histogram(
            "request_seconds", "Until a request was answered.", ("path",), buckets=_SECONDS, **named
        )
        self.unknown = Counter("unknown_items", "Items of histories that the model does not know.", **named)
        self.pending = Gauge("pending_histories", "Histories that wait or are ranked now.", **named)
        self.batch = Histogram(
            "batch_histories", "Histories ranked together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), **named
        )
        self.ranking = Histogram("ranking_seconds", "One call of the model.", buckets=_SECONDS, **named)

    def ranked(self, histories: int, seconds: float) -> None:
        """Note one call of the model."""
        self.batch.observe(histories)
        self.ranking.observe(seconds)


def app_of(recommender: Recommender, limits: Limits) -> FastAPI:
    """The service of one process."""
    measures = Measures()
    batcher = Batcher(recommender, limits, measures.ranked)
    measures.pending.set_function(lambda: batcher.pending)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await batcher.start()
        yield
        await batcher.stop()

    titles = Titles.of(recommender.parts)
    return make_app(batcher.answer, lambda: batcher.alive, titles, recommender.parts.config, limits, measures, lifespan)


def make_app(
    answer: Callable[[Question], Awaitable[Answer]],
    alive: Callable[[], bool],
    titles: Titles,
    config: dict[str, Any],
    limits: Limits,
    measures: Measures,
    lifespan: Lifespan | None = None,
) -> FastAPI:
    """The service, whatever it is that ranks.

    Args:
        answer: may raise InputError, which becomes 422, and Busy, which becomes 503.
        alive: whether ``answer`` still works.
        titles: for the search.
        config: of the model.
        limits: on requests.
        measures: shown at ``/metrics``.
        lifespan: what is to run before and after.
    """
    name = " ".join(str(config[key]) for key in ("model", "stage") if config.get(key))
    about = {"model": name, "dataset": config.get("dataset"), "items": len(titles)}
    app = FastAPIOffline(
        title=f"Recommendations by {name}",
        description=f"At most {limits.histories} histories a request, of {limits.length:,} items each, {limits.k} "
        f"recommendations and {limits.candidates:,} candidates a history, and {limits.body:,} bytes.",
        version="1",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.add_middleware(_Gate, limits=limits, measures=measures)
    page = files("recbole_stream.serving").joinpath("page/index.html").read_text(encoding="utf-8")
    problems: dict[int | str, dict[str, Any]] = {
        status: {"model": Problem, "description": words}
        for status, words in {
            400: "The body is no JSON.",
            408: "The body did not arrive in time.",
            413: "The body is too large.",
            422: "The question cannot be answered.",
            503: "Too much is asked at once; `Retry-After` says when to try again.",
        }.items()
    }

    @app.post("/recommend", response_model_exclude_none=True, responses=problems)
    async def recommend(question: Question) -> Answer:
        """Recommend for one history or many."""
        found = await answer(question)
        measures.unknown.inc(found.unknown_items)
        return found

    @app.get("/items", responses={422: problems[422]})
    def items(
        query: str = Query("", max_length=limits.query, description="words of a title, or an item's name"),
        limit: int = Query(20, ge=1, le=limits.found),
    ) -> list[Item]:
        """Search items by title; without a query, the most frequent ones."""
        return titles.find(query, limit)

    @app.get("/health", responses={503: problems[503]})
    async def health() -> dict[str, Any]:
        """Whether questions are answered, and by which model."""
        if not alive():
            raise Busy("The ranking has ended: start the service again.")
        return {"status": "ok", **about}

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(generate_latest(measures.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", include_in_schema=False)
    async def home() -> HTMLResponse:
        return HTMLResponse(page, headers=_PAGE_HEADERS)

    @app.exception_handler(RequestValidationError)
    async def not_understood(_: Request, fault: RequestValidationError) -> JSONResponse:
        first = fault.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if not str(part).startswith(("list[", "constrained")))
        if first["type"] == "json_invalid":
            return _problem(400, "The body is no JSON: send an object as /docs shows it.")
        return _problem(422, f"{place or 'The body'}: {first['msg']}; see /docs.")

    @app.exception_handler(InputError)
    async def not_answerable(_: Request, fault: InputError) -> JSONResponse:
        return _problem(422, str(fault))

    @app.exception_handler(Busy)
    async def busy(_: Request, fault: Busy) -> JSONResponse:
        return _problem(503, str(fault), _RETRY)

    @app.exception_handler(AnyHTTPException)
    async def http(_: Request, fault: AnyHTTPException) -> JSONResponse:
        return _problem(fault.status_code, _SENTENCES.get(fault.status_code, fault.detail), fault.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, fault: Exception) -> JSONResponse:
        return _problem(500, "The service failed on this request: its log says where.")

    return app


def _problem(status: int, sentence: str, headers: Any = None) -> JSONResponse:
    return JSONResponse({"detail": sentence}, status, headers)


class _Gate:
    """Counts and times all requests; refuses bodies that are too large or too slow.

    Starlette limits the size, too, but answers without JSON.
    """

    def __init__(self, app: ASGIApp, limits: Limits, measures: Measures) -> None:
        self.app, self.limits, self.measures = app, limits, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        start, status, size, whole = time.monotonic(), 500, 0, False

        async def gated_receive() -> Message:
            nonlocal size, whole
            if whole:  # the next message says that the client has gone
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, start + self.limits.patience - time.monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(
                    408, f"The body did not arrive within {self.limits.patience:g} seconds.", {"Connection": "close"}
                ) from None
            whole = not message.get("more_body")
            size += len(message.get("body", b""))
            if size > self.limits.body:
                raise HTTPException(
                    413, f"The body is larger than {self.limits.body:,} bytes: send less.", {"Connection": "close"}
                )
            return message

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, gated_receive, noting_send)
        finally:
            path = getattr(scope.get("route"), "path", "other")  # not what was typed, of which there is no end
            self.measures.requests.labels(path, status).inc()
            self.measures.seconds.labels(path).observe(time.monotonic() - start)
