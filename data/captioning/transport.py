"""One POST to a server: under one deadline, without redirects, and with the key kept out of every text that comes back.

Nothing but the standard library. huggingface_hub's `InferenceClient` (2.4) was tried: without a key it sends the user's
Hub token to whatever server is asked, it follows redirects, its timeout is one of silence (a server that drips a byte
now and then is never given up), it reads answers of any size, and under HF_HUB_OFFLINE=1 it refuses every server, one
on this very machine, too.
"""

import contextlib
import functools
import http.client
import json
import queue
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime

from ...files.text import printable

MAX_ANSWER_BYTES = 16 << 20
MAX_REASON_BYTES = 1 << 16
MAX_REASON_CHARACTERS = 300
MAX_RETRY_AFTER_S = 600.0  # a server that asks for more is not waited for longer


class RefusedError(Exception):
    """A request without an answer: ask again? how soon? is the server at fault?

    `code` is the HTTP status, if there is one, and `text` all that the server said.
    """

    def __init__(self, reason, again=True, pause=0.0, server=False, code=None, text=""):
        super().__init__(reason)
        self.again, self.pause, self.server, self.code, self.text = again, pause, server, code, text


def post(url: str, body: bytes, key: str, timeout: float) -> bytes:
    """Send JSON, return the answer's body.

    Args:
        url: where to.
        body: the JSON.
        key: sent as a bearer token; empty for none.
        timeout: seconds for everything: name look-up, connecting, headers and body.

    Raises:
        RefusedError: no whole answer in time, or another status than 200.
    """
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    call = Call(urllib.request.Request(url, data=body, headers=headers), key, timeout)
    threading.Thread(target=call.run, daemon=True).start()
    try:
        outcome = call.outcome.get(timeout=timeout)
    except queue.Empty:
        call.hang_up()
        raise RefusedError(f"no whole answer within {timeout:g} s (--timeout)") from None
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


class Call(urllib.request.HTTPSHandler, urllib.request.HTTPHandler):
    """One request in a thread of its own, so that its deadline holds whatever the socket waits for."""

    def __init__(self, request, key, timeout):
        super().__init__()
        self.request, self.key, self.timeout = request, key, timeout
        self.connections, self.given_up, self.outcome = [], threading.Event(), queue.SimpleQueue()

    def run(self):
        """Put the answer, or the error that stands for it, into `outcome`."""
        try:
            self.outcome.put(self._exchange())
        except urllib.error.HTTPError as error:
            self.outcome.put(refusal_of(error, self.key))
        except (OSError, http.client.HTTPException) as error:
            self.outcome.put(silence_of(error, self.key))
        except Exception as error:
            self.outcome.put(error)

    def hang_up(self):
        """Close the connection: the server may stop working on what nobody waits for."""
        self.given_up.set()
        for connection in self.connections:
            if (line := connection.sock) is not None:
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)

    def do_open(self, http_class, req, **options):
        """Open a connection that `hang_up` knows."""

        def connect(*args, **more):
            self.connections.append(http_class(*args, **more))
            return self.connections[-1]

        return super().do_open(connect, req, **options)

    def _exchange(self):
        opener, data = urllib.request.build_opener(NoRedirect, self), bytearray()
        with opener.open(self.request, timeout=self.timeout) as response:
            while piece := response.read1(1 << 16):
                data += piece
                if self.given_up.is_set():
                    break
                if len(data) > MAX_ANSWER_BYTES:
                    return RefusedError(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MB")
            if response.length:  # `read1` does not tell that the connection ended early
                raise http.client.IncompleteRead(bytes(data), response.length)
        return bytes(data)


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: followed, it would carry picture and key to another host."""

    def redirect_request(self, *_):
        """Refuse."""
        return None


def silence_of(error: Exception, key: str = "") -> RefusedError:
    """Judge a connection without an HTTP status: broken while talking, it may be the image; never made, the server."""
    cause = getattr(error, "reason", error)
    choked = isinstance(cause, (TimeoutError, ConnectionError, http.client.HTTPException))
    away = isinstance(cause, ConnectionRefusedError) or not choked
    return RefusedError(without_key(printable(f"{type(cause).__name__}: {cause}"), key), server=away)


def refusal_of(error: urllib.error.HTTPError, key: str = "") -> RefusedError:
    """Judge an HTTP error: its body says why, Retry-After when to ask again."""
    pause = 0.0
    try:
        body = error.read(MAX_REASON_BYTES)
    except (OSError, http.client.HTTPException):
        body = b""
    error.close()
    text = body.decode("utf-8", "replace")
    if len(body) == MAX_REASON_BYTES:  # cut, perhaps within the key
        text = text[: -len(key) or None]
    if after := error.headers.get("Retry-After"):
        try:
            pause = float(after) if after.strip().isdigit() else parsedate_to_datetime(after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            pause = 0.0
    return refusal(error.code, f"{error.reason}: {reason_in(text)}", text, key, pause)


def refusal(code: int, reason: str, text: str, key: str = "", pause: float = 0.0) -> RefusedError:
    """Judge an HTTP status: ask later or never, this image's fault or the server's."""
    again = code in (408, 409, 425, 429) or code >= 500
    server = code in (429, 502, 503, 504) or (not again and code not in (400, 413, 415, 422))
    reason = without_key(printable(f"HTTP {code} {reason}"), key)[:MAX_REASON_CHARACTERS]
    return RefusedError(reason, again, min(max(pause, 0.0), MAX_RETRY_AFTER_S), server, code, text)


def reason_in(text: str) -> str:
    """Return the message of an error's body: OpenAI's `error.message`, FastAPI's `detail`, or the text as it is."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text
    for name in ("error", "detail", "message"):
        if isinstance(content, dict) and content.get(name):
            content = content[name]
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def without_key(text: str, key: str) -> str:
    """Return a text from a server without the key that it may echo, plain or escaped for JSON, URLs or HTML."""
    return _pattern(key).sub("[key]", text) if len(key) >= 4 else text


@functools.lru_cache(maxsize=8)
def _pattern(key: str) -> re.Pattern:
    def forms(character):
        code = f"{ord(character):02x}"
        escapes = rf"\\{{1,2}}(?:u00|x){code}|%{code}|&#(?:{ord(character)}|x{code});"
        return rf"(?:\\?{re.escape(character)}|{escapes})"

    return re.compile("".join(map(forms, key)), re.IGNORECASE)


def secretless(text: str, key: str) -> str:
    """Return an answer without the key, unless the key is a plain word, as the EMPTY that local servers are given.

    Such a word is no secret, and a caption may hold it.
    """
    return text if key.isalpha() and len(key) < 12 else without_key(text, key)


__all__ = ["RefusedError", "post", "reason_in", "refusal", "secretless", "without_key"]
