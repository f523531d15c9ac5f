"""Serve an index: what is checked before, the socket, and the end."""

import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable, Iterable
from typing import Any, Literal

from ..search.retriever import Retriever

NEEDED = ("starlette", "uvicorn", "prometheus_client")
TOKEN = "VSEHUB_SERVE_TOKEN"  # variable of the environment: a command line can be read by other users
SHORTEST_TOKEN = 16  # characters


def check_extra():
    """Check that the packages of the extra `serve` are there.

    Raises:
        ImportError: they are not; the message names the extra.
    """
    for name in NEEDED:
        try:
            __import__(name)
        except ImportError:
            raise ImportError(f'a server needs {name}: pip install "vsehub[serve]"') from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server at this host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str | None, public: bool = False):
    """Check that a server which other machines reach has a token, and no guessable one, unless it is public.

    Raises:
        ValueError: it has none, or a short one; or it is public and has one.
    """
    if public and token is not None:
        raise ValueError(f"--public is for everybody: leave out the token (--token_file, {TOKEN}), or --public")
    if token is None and not is_loopback(host) and not public:
        raise ValueError(
            f"--host {host}: other machines reach it; set {TOKEN}, or give --token_file FILE "
            "(--public lets everybody search)"
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise ValueError(
            f"the token must have at least {SHORTEST_TOKEN} characters of ASCII: "
            "python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )


def bound(host: str, port: int) -> socket.socket:
    """A socket at this address; port 0 takes a free one.

    Raises:
        ValueError: the port is taken, or there is no such address here.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        own = socket.socket(family, kind, number)
        if os.name == "posix":  # elsewhere it would let two servers share a port
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        own.bind(address)
    except OSError as error:
        raise _taken(host, port, error) from None
    return own


def listen(own: socket.socket, backlog: int):
    """Let clients connect.

    Raises:
        ValueError: another server has begun to listen at this address since it was bound.
    """
    try:
        own.listen(backlog)
    except OSError as error:
        host, port = own.getsockname()[:2]
        raise _taken(host, port, error) from None


def _taken(host: str, port: int, error: OSError) -> ValueError:
    flag = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
    return ValueError(f"{host}:{port} cannot be listened at ({error.strerror}): give another {flag}")


def _server_of(app, limits):
    """The `uvicorn.Server` of an application."""
    import uvicorn

    from .connections import Connection

    config = uvicorn.Config(
        app,
        http=Connection,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=16 * limits.requests,  # connections: their number costs memory, too
        timeout_keep_alive=10,
        timeout_graceful_shutdown=10,
        ws="none",
    )
    return uvicorn.Server(config)


def serve(
    retriever: Retriever,
    own: socket.socket,
    token: str | None = None,
    images: Iterable[str] = (),
    stamp: tuple | None = None,
    limits=None,
    examples: tuple[str, ...] = (),
    hosts: Iterable[str] | Literal["any"] | None = None,
    framed_by: str = "'none'",
    means: bool = True,
    ready: Callable[[Any], None] = lambda server: None,
):
    """Serve an index until the process is told to end (SIGINT or SIGTERM); requests that are answered are finished.

    Args:
        retriever: over the index.
        own: `bound` socket.
        token: that requests must bring; None for none.
        images, stamp: of `LiveIndex`.
        limits: `questions.Limits`.
        examples, means: of `Service`.
        hosts: names of this server; `any` for all; default those of this machine without a token, all with one.
        framed_by: of `Guard`.
        ready: called with the `uvicorn.Server` as soon as clients can connect; its `should_exit` ends it.

    Raises:
        ImportError: the extra `serve` is not installed.
        ValueError: see `listen`.
    """
    check_extra()
    from .app import make_app
    from .guard import LOOPBACK
    from .metrics import Metrics
    from .questions import Limits

    limits, metrics = limits or Limits(), Metrics()
    service = service_of(retriever, metrics, limits, images, stamp, examples, means)
    if hosts is None and token is None:
        hosts = {*LOOPBACK, own.getsockname()[0]}
    app = make_app(service, metrics, token, None if hosts == "any" else hosts, framed_by)
    server = _server_of(app, limits)
    listen(own, server.config.backlog)  # who was told the address may ask at once, and waits until the server starts
    ready(server)
    try:
        server.run(sockets=[own])
    finally:
        service.live.close()
        own.close()


def service_of(
    retriever: Retriever, metrics, limits, images=(), stamp=None, examples: tuple[str, ...] = (), means: bool = True
):
    """The `Service` of an index; the arguments are those of `serve`."""
    from .batching_encoder import BatchingEncoder
    from .live_index import LiveIndex
    from .service import Service

    encoder = BatchingEncoder(retriever.encoder, limits.seconds, metrics.observe_batch)
    return Service(LiveIndex(Retriever(encoder, index=retriever.index), images, stamp), limits, examples, means)


__all__ = ["TOKEN", "bound", "check_extra", "check_token", "is_loopback", "serve", "service_of"]
