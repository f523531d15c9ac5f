"""Pictures to dense captions by any OpenAI-compatible server, over HTTP with nothing but the standard library.

A server fails in three ways. It may be busy or away (429, 502, refused connections): ask again, in the end stop.
It may choke on one image (500, timeouts, nonsense, an empty answer): ask again, in the end report that image. Or the
request can never succeed (401, 404, redirects): stop at once.
"""

import base64
import http.client
import io
import json
import os
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from .local_captioner import Caption, CaptionError, CaptionRequest, Failure

BACKOFF_S = 1.0  # first pause before a request is repeated; doubles up to MAX_PAUSE_S, plus or minus half at random
MAX_PAUSE_S = 60.0
MAX_RETRY_AFTER_S = 600.0  # a server that asks for more is not waited for longer
MAX_ANSWER_BYTES = 16 << 20


class RefusedError(Exception):
    """A request without an answer: ask again? how soon? is the server at fault, or the image?"""

    def __init__(self, reason, again=True, pause=0.0, server=False):
        super().__init__(reason)
        self.again, self.pause, self.server = again, pause, server


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: followed, it would carry the key to another host."""

    def redirect_request(self, *_):
        """Refuse."""
        return None


class ServerCaptioner:
    """Any OpenAI-compatible server of vision-language models (vLLM, TGI, llama.cpp, ...), asked in parallel.

    Args:
        model_id: the model's name on the server.
        request: prompt and sampling.
        api_base: URL up to and with `/v1`. The key, if any, is `OPENAI_API_KEY` of the environment.
        concurrency: requests in flight.
        timeout: seconds a request may take.
        tries: requests an image is worth, pauses doubling in between (429's Retry-After is honoured).
    """

    backend = "openai"

    def __init__(self, model_id, request=None, api_base="", concurrency=8, timeout=120.0, tries=8):
        self.model_id, self.request, self.url = model_id, request or CaptionRequest(), api_base.rstrip("/")
        self.concurrency, self.timeout, self.tries = concurrency, timeout, tries
        self.stop = threading.Event()

    def identity(self) -> dict:
        """Return `model_id`; the revision is known from answers only, and recorded with each."""
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in self.url
        except ValueError:
            good = False
        if not good:
            raise CaptionError(f"api_base {self.url!r} is not a URL such as http://localhost:8000/v1")
        if not 0 < self.timeout < float("inf"):
            raise CaptionError(f"timeout {self.timeout} is not a number of seconds")
        if not (api_key().isascii() and api_key().isprintable()):  # http.client's error would print it
            raise CaptionError("OPENAI_API_KEY of the environment holds more than printable ASCII: set it again")
        return {"model_id": self.model_id, "revision": None}

    def captions(self, items: Iterable) -> Iterator[list]:
        """Yield outcomes as they arrive, in any order."""
        inbox, outbox, in_flight = queue.SimpleQueue(), queue.SimpleQueue(), 0
        self.stop = threading.Event()
        for _ in range(self.concurrency):  # daemons: Ctrl-C need not wait for the slowest answer
            threading.Thread(target=self._work, args=(inbox, outbox, self.stop), daemon=True).start()
        try:
            for item in items:
                inbox.put(item)
                in_flight += 1
                if in_flight >= self.concurrency:
                    outcomes = arrived(outbox)
                    in_flight -= len(outcomes)
                    yield from settled(outcomes)
            while in_flight:
                outcomes = arrived(outbox)
                in_flight -= len(outcomes)
                yield from settled(outcomes)
        finally:
            self.stop.set()
            for _ in range(self.concurrency):
                inbox.put(None)

    def _work(self, inbox, outbox, stop):
        while (item := inbox.get()) is not None and not stop.is_set():
            try:
                outbox.put(self._ask(*item, stop))
            except Exception as error:  # raised again where the answers are read
                outbox.put(error)

    def _ask(self, image_id, image, stop):
        for attempt in range(self.tries):
            try:
                return self._read(image_id, self._post(self._body(image, attempt)))
            except RefusedError as error:
                refusal = error
            if not refusal.again:
                break
            pause = min(MAX_PAUSE_S, BACKOFF_S * 2**attempt) * random.uniform(0.5, 1.5)
            if attempt + 1 < self.tries and stop.wait(max(pause, refusal.pause + random.random() * BACKOFF_S)):
                break
        tries = f"{attempt + 1} tries" if attempt else "1 try"
        if refusal.server:
            raise CaptionError(f"{self.url}, after {tries}: {refusal}. Captions so far are kept: mend it and run again")
        return Failure(image_id, f"{image_id}: no caption from the server after {tries}: {refusal}")

    def _body(self, image, attempt):
        file = io.BytesIO()
        kind = "jpeg" if max(image.size) < 65_500 else "png"  # JPEG ends there
        image.save(file, kind, **({"quality": 95} if kind == "jpeg" else {}))
        url = f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
        request = self.request
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": request.prompt}]
        body = {"model": self.model_id, "messages": [{"role": "user", "content": content}]}
        body.update(temperature=request.temperature, top_p=request.top_p, max_tokens=request.max_new_tokens)
        if request.seed is not None:
            body["seed"] = request.seed + attempt  # an empty answer is not asked for again word for word
        return json.dumps(body).encode()

    def _post(self, body):
        headers = {"Content-Type": "application/json"}
        if api_key():
            headers["Authorization"] = f"Bearer {api_key()}"
        request = urllib.request.Request(f"{self.url}/chat/completions", data=body, headers=headers)
        opener, end = urllib.request.build_opener(NoRedirect), time.monotonic() + self.timeout
        data = b""
        try:
            with opener.open(request, timeout=self.timeout) as response:
                while piece := response.read1(1 << 16):  # the timeout of urllib is one of silence, not of the whole
                    data += piece
                    if len(data) > MAX_ANSWER_BYTES or time.monotonic() > end:
                        raise RefusedError(f"answer of more than {MAX_ANSWER_BYTES >> 20} MB or {self.timeout:g} s")
        except urllib.error.HTTPError as error:
            raise refusal_of(error) from None
        except (OSError, http.client.HTTPException) as error:
            cause = getattr(error, "reason", error)
            choked = isinstance(cause, (TimeoutError, ConnectionError, http.client.HTTPException))
            away = isinstance(cause, ConnectionRefusedError) or not choked
            raise RefusedError(f"{type(cause).__name__}: {cause}", server=away) from None
        return data

    def _read(self, image_id, data):
        try:
            answer = json.loads(data)
            choice = answer["choices"][0]
            text, usage = choice["message"]["content"], answer.get("usage") or {}
            text, tokens = clean(text).strip(), usage.get("completion_tokens")
            revision, reason = answer.get("model"), choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RefusedError(f"malformed answer ({type(error).__name__}: {error})") from None
        if not text:
            raise RefusedError(f"empty answer (finish_reason {reason!r})")
        tokens = tokens if type(tokens) is int and 0 <= tokens < 1 << 31 else None
        revision = clean(revision) if isinstance(revision, str) and revision else "unknown"
        return Caption(image_id, text, reason in ("length", "content_filter", "abort"), tokens, revision)


def api_key() -> str:
    """Return the key of the environment, or nothing."""
    return os.environ.get("OPENAI_API_KEY", "").strip()


def arrived(outbox) -> list:
    """Wait for an outcome; return it with those that are there as well."""
    outcomes = [outbox.get()]
    while not outbox.empty():
        outcomes.append(outbox.get())
    return outcomes


def settled(outcomes) -> Iterator[list]:
    """Yield what was answered, then raise what was not."""
    yield [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    for error in outcomes:
        if isinstance(error, Exception):
            raise error


def refusal_of(error) -> RefusedError:
    """Judge an HTTP status: later, never, this image's fault or the server's."""
    code, pause = error.code, 0.0
    try:
        text = clean(error.read(2000).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException):
        text = ""
    error.close()
    reason = " ".join(f"HTTP {code} {error.reason}: {text}".split())[:300]
    if after := error.headers.get("Retry-After"):
        try:
            pause = float(after) if after.strip().isdigit() else parsedate_to_datetime(after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            pause = 0.0
    again = code in (408, 409, 425, 429) or code >= 500
    server = code in (429, 502, 503, 504) or (not again and code not in (400, 413, 415, 422))
    return RefusedError(reason, again, min(max(pause, 0.0), MAX_RETRY_AFTER_S), server)


def clean(text: str) -> str:
    """Replace what is not UTF-8 (lone surrogates pass JSON, and break Parquet hours later)."""
    return text.encode("utf-8", "replace").decode()


__all__ = ["ServerCaptioner"]
