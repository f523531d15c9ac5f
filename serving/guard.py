"""What is checked before a request is read, and put on every answer."""

import asyncio
import hmac
import time
from collections.abc import Iterable

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from .metrics import Metrics
from .questions import Limits

OPEN = ("/", "/page.css", "/page.js", "/health")  # hold nothing of the index, and need no token
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors "
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
BODIES = 8  # times the largest body: what all requests may hold together, until they are answered
READING = 30.0  # seconds for the body of a request, and that a connection may ask for nothing


class Guard:
    """Refuses requests without the token, of foreign host names, and beyond what is answered at once.

    Args:
        app: that answers.
        limits: see `Limits`.
        metrics: which count.
        token: that requests must bring; None for none.
        hosts: names by which the server may be called; None for any. A page of another site cannot then read from a
            server on this machine by giving its own name this machine's address.
        framed_by: pages that may show this one in a frame.
    """

    def __init__(self, app, limits: Limits, metrics: Metrics, token: str | None, hosts=LOOPBACK, framed_by="'none'"):
        self.app, self.limits, self.metrics, self.token = app, limits, metrics, token
        self.hosts: Iterable[str] | None = hosts
        self.policy = POLICY + framed_by
        self.answering = self.held = 0

    async def __call__(self, scope, receive, send):
        """Answer as an ASGI application."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        scope["vsehub guard"], start, status = self, time.perf_counter(), [0]

        async def sending(message):
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                headers = MutableHeaders(scope=message)
                headers["Content-Security-Policy"] = self.policy
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is not None:
                return await refused(scope, receive, sending)
            self.answering += 1
            self.metrics.answering.set(self.answering)
            try:
                await self.app(scope, receive, sending)
            except asyncio.CancelledError:  # the server ends, and waits no longer
                if not status[0]:
                    await problem(503, "the server ends: send it again later")(scope, receive, sending)
            finally:
                self.answering -= 1
                self.held -= scope.pop("vsehub body", 0)
                self.metrics.answering.set(self.answering)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(route, status[0] or 500).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)

    def _refusal(self, scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if self.hosts is not None and _name(headers.get("host", "")) not in self.hosts:
            return problem(400, "this server answers to localhost alone: start it with a token for other names")
        if scope["path"] in OPEN:
            return None
        given = headers.get("authorization", "")
        given = given[7:].strip() if given[:7].lower() == "bearer " else given  # in small letters, too (RFC 9110, 11.1)
        if self.token is not None and not hmac.compare_digest(given.encode(), self.token.encode()):
            return problem(401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if self.answering >= self.limits.requests:
            return problem(429, f"{self.limits.requests} requests are being answered: try again", {"Retry-After": "1"})
        return None


async def body_of(request: Request) -> bytes:
    """The body of a JSON request, within the limits of the guard, which counts its bytes until the answer is sent.

    Raises:
        HTTPException: 413 for a body that is too large, 408 for one that takes too long, 415 for another type, 429
            where the bodies of all requests are too large together.
    """
    guard: Guard = request.scope["vsehub guard"]
    most = guard.limits.body
    large = HTTPException(413, f"the body is larger than {most:,} bytes: send fewer or smaller pictures")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "send JSON, with Content-Type: application/json")
    if int(request.headers.get("content-length", "0") or 0) > 2 * most:
        raise large
    parts, size, held = [], 0, 0
    try:
        with anyio.fail_after(READING):
            async for chunk in request.stream():
                size += len(chunk)
                if size > 2 * most:
                    break
                if size <= most:
                    parts.append(chunk)
                    held, guard.held = held + len(chunk), guard.held + len(chunk)
                if guard.held > BODIES * most:
                    raise HTTPException(
                        429, "too many large requests are being answered: try again", {"Retry-After": "1"}
                    )
        if size > most:  # read to its end (and forgotten), so that the sender reads this answer
            raise large
        request.scope["vsehub body"], held = held, 0
    except ClientDisconnect:
        raise HTTPException(400, "the body did not arrive") from None
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {READING:g} s") from None
    finally:
        guard.held -= held
    return b"".join(parts)


def problem(status: int, message: str, headers: dict | None = None) -> JSONResponse:
    """An error, in the shape of OpenAI's API."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": status}}, status, headers)


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    return host.lower() if host.endswith("]") else host.lower().rpartition(":")[0] or host.lower()


__all__ = ["HEADERS", "LOOPBACK", "OPEN", "Guard", "body_of", "problem"]
