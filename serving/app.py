"""The HTTP server: routes, and how errors are answered."""

import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from ..files.text import printable
from ..hub_cards.handler import TooMuchError
from ..processing.pixels import BadImageError
from ..search.index_store import IndexFolderError
from .guard import LOOPBACK, Guard, body_of, problem
from .metrics import Metrics
from .service import SIDES, Service

logger = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("page")
RETRY = {"Retry-After": "5"}
KEPT = {"Cache-Control": "private, max-age=60"}


def make_app(
    service: Service, metrics: Metrics, token: str | None = None, hosts=LOOPBACK, framed_by: str = "'none'"
) -> Starlette:
    """The ASGI application of a service.

    Args:
        service: that answers.
        metrics: which count.
        token, hosts, framed_by: of `Guard`.
    """
    api = Api(service, metrics)
    routes = [
        Route("/search", api.search, methods=["POST"]),
        Route("/v1/embeddings", api.embeddings, methods=["POST"]),
        Route("/v1/models", api.models),
        Route("/pictures/{id}", api.picture),
        Route("/belief/{id}", api.belief),
        Route("/about", api.about),
        Route("/health", api.health),
        Route("/metrics", api.counters),
        *(Route(f"/{name}", file_of(name)) for name in ("page.css", "page.js")),
        Route("/", file_of("page.html")),
    ]
    kinds = (HTTPException, ValueError, KeyError, TimeoutError, OSError, torch.OutOfMemoryError, Exception)
    errors = {kind: answer_error for kind in kinds}

    @asynccontextmanager
    async def lifespan(app):
        service.live.watch()
        yield
        service.live.close()

    app = Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)
    app.add_middleware(Guard, limits=service.limits, metrics=metrics, token=token, hosts=hosts, framed_by=framed_by)
    return app


class Api:
    """The answers of a service as those of HTTP; a service works in threads."""

    def __init__(self, service: Service, metrics: Metrics):
        self.service, self.metrics = service, metrics
        self._threads = anyio.CapacityLimiter(service.limits.requests)

    async def search(self, request: Request) -> Response:
        """`POST /search`."""
        return JSONResponse(await self._in_thread(self.service.search, await body_of(request)))

    async def embeddings(self, request: Request) -> Response:
        """`POST /v1/embeddings`."""
        return JSONResponse(await self._in_thread(self.service.embeddings, await body_of(request)))

    async def models(self, request: Request) -> Response:
        """`GET /v1/models`."""
        model = {"id": self.service.model, "object": "model", "owned_by": "vsehub"}
        return JSONResponse({"object": "list", "data": [model]})

    async def picture(self, request: Request) -> Response:
        """`GET /pictures/ID`."""
        asked = request.query_params.get("side", str(SIDES[0]))
        side = int(asked) if asked.isdecimal() and len(asked) < 6 else 0
        jpeg = await self._in_thread(self.service.picture, request.path_params["id"], side)
        return Response(jpeg, 200, KEPT, "image/jpeg")

    async def belief(self, request: Request) -> Response:
        """`GET /belief/ID`."""
        return Response(await self._in_thread(self.service.belief, request.path_params["id"]), 200, KEPT, "image/jpeg")

    async def about(self, request: Request) -> Response:
        """`GET /about`."""
        return JSONResponse(await self._in_thread(self.service.about))

    async def health(self, request: Request) -> Response:
        """`GET /health`."""
        return JSONResponse({"status": "ok", "index": "current" if self.service.live.problem is None else "outdated"})

    async def counters(self, request: Request) -> Response:
        """`GET /metrics`."""
        return Response(self.metrics.text(self.service.live), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _in_thread(self, function: Callable, *args):
        return await anyio.to_thread.run_sync(function, *args, limiter=self._threads)


def file_of(name: str):
    """What answers with a file of the page."""

    async def answer(request: Request) -> Response:
        return FileResponse(PAGE / name)

    return answer


async def answer_error(request: Request, error: Exception) -> JSONResponse:
    """An error as one line that tells the remedy and no path of this machine; all others go to the log."""
    if isinstance(error, HTTPException):
        return problem(error.status_code, error.detail, dict(error.headers or {}))
    if isinstance(error, (BadImageError, OSError)) and not isinstance(error, TimeoutError):
        logger.warning("a picture cannot be shown: %s", printable(error))
        return problem(404, "this picture cannot be shown; the server's log says why")
    if isinstance(error, KeyError):
        return problem(404, str(error.args[0]) if error.args else "there is nothing here")
    if isinstance(error, TimeoutError):
        return problem(503, str(error), RETRY)
    if isinstance(error, torch.OutOfMemoryError):
        logger.warning("the device of the model has too little memory: %s", printable(error))
        return problem(503, "too little memory for this now: send fewer texts and pictures, or later", RETRY)
    if isinstance(error, TooMuchError):
        return problem(413, str(error))
    if isinstance(error, ValueError) and not isinstance(error, IndexFolderError):
        return problem(400, " ".join(str(error).split()))
    if isinstance(error, IndexFolderError):  # of others, the server itself writes where they came from
        logger.warning("the index cannot be searched: %s", printable(error))
    return problem(500, "this is a fault of the server, and is in its log")


__all__ = ["Api", "answer_error", "make_app"]
