"""The HTTP server: routes, and how errors are answered."""

import io
import logging
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
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
    threads = anyio.CapacityLimiter(service.limits.requests)

    async def in_thread(function: Callable, *args):
        return await anyio.to_thread.run_sync(function, *args, limiter=threads)

    async def search(request: Request):
        return JSONResponse(await in_thread(service.search, await body_of(request)))

    async def embeddings(request: Request):
        return JSONResponse(await in_thread(service.embeddings, await body_of(request)))

    async def models(request: Request):
        return JSONResponse(
            {"object": "list", "data": [{"id": service.model, "object": "model", "owned_by": "vsehub"}]}
        )

    async def picture(request: Request):
        side = request.query_params.get("side", str(SIDES[0]))
        side = int(side) if side.isdecimal() and len(side) < 6 else 0
        return Response(await in_thread(service.picture, request.path_params["id"], side), 200, KEPT, "image/jpeg")

    async def belief(request: Request):
        image, buffer = await in_thread(service.belief, request.path_params["id"]), io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return Response(buffer.getvalue(), 200, KEPT, "image/jpeg")

    async def about(request: Request):
        return JSONResponse(await in_thread(service.about))

    async def health(request: Request):
        return JSONResponse({"status": "ok", "index": "current" if service.live.problem is None else "outdated"})

    async def counters(request: Request):
        return Response(metrics.text(service.live), media_type="text/plain; version=0.0.4; charset=utf-8")

    def file(name: str):
        async def send(request: Request):
            return FileResponse(PAGE / name)

        return send

    @asynccontextmanager
    async def lifespan(app):
        service.live.watch()
        yield
        service.live.close()

    routes = [
        Route("/search", search, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
        Route("/v1/models", models),
        Route("/pictures/{id}", picture),
        Route("/belief/{id}", belief),
        Route("/about", about),
        Route("/health", health),
        Route("/metrics", counters),
        *(Route(f"/{name}", file(name)) for name in ("page.css", "page.js")),
        Route("/", file("page.html")),
    ]
    errors = {kind: answer_error for kind in (HTTPException, ValueError, KeyError, TimeoutError, OSError, Exception)}
    app = Starlette(routes=routes, exception_handlers=errors, lifespan=lifespan)
    app.add_middleware(Guard, limits=service.limits, metrics=metrics, token=token, hosts=hosts, framed_by=framed_by)
    return app


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
        return problem(503, str(error), {"Retry-After": "5"})
    if isinstance(error, TooMuchError):
        return problem(413, str(error))
    if isinstance(error, ValueError) and not isinstance(error, IndexFolderError):
        return problem(400, " ".join(str(error).split()))
    return problem(500, "this is a fault of the server, and is in its log")


__all__ = ["answer_error", "make_app"]
