"""Connections that ask for nothing are closed, so that they do not take the places of those that do."""

from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from .guard import READING

_Protocol: Any = AutoHTTPProtocol  # of h11, or of httptools where that is installed


class Connection(_Protocol):
    """A connection of uvicorn, which itself waits forever for the first request, and for the end of its head.

    It is closed when `READING` seconds pass in which no request was answered and none began to be.
    """

    def connection_made(self, transport):
        """Begin to watch."""
        super().connection_made(transport)
        self._watch()

    def connection_lost(self, exc):
        """End to watch."""
        self._look.cancel()
        super().connection_lost(exc)

    def _watch(self):
        self._seen = self.cycle  # of the newest request; None before there is one
        self._look = self.loop.call_later(READING, self._close_if_idle)

    def _close_if_idle(self):
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.cycle is not self._seen:
            self._watch()
        else:
            self.transport.abort()  # to close it would wait for a client that does not read its answer


__all__ = ["Connection"]
