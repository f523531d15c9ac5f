"""Pictures to dense captions by any OpenAI-compatible server.

A server fails in four ways, and every fault has its owner. It may be busy or away (429, 502, refused connections): ask
again, in the end stop. It may choke on one image (500, timeouts, nonsense, an answer that is no caption): ask again, in
the end report that image; one that is too large for it is shrunk first. The request may be wrong (400 before anything
was answered, and for a plain picture as well): stop, with the server's reason. Or it can never succeed (401, 404,
redirects): stop at once.
"""

import base64
import io
import json
import os
import queue
import random
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from ...files.text import clean_text
from .answers import UnusableAnswerError, began_in_reasoning, caption_in
from .chat_message import CUT, content_of, refused_with_200
from .request import Caption, CaptionError, CaptionRequest, Failure, fitted
from .transport import RefusedError, post, secretless, without_key

BACKOFF_S = 1.0  # first pause before a request is repeated; doubles up to MAX_PAUSE_S, plus or minus half at random
MAX_PAUSE_S = 60.0
MAX_IMAGE_SIDE = 2048  # pixels; most servers use no more (LLaVA-1.5 sees 336), and 40 megapixels take long to send
LARGEST_JPEG = 65_500
SMALLEST_SIDE = 224  # a picture that is still too large is at fault itself
ANSWER_TRIES = 3  # a model that answers without a caption usually does so again
REFUSING = (400, 413, 415, 422)
REFUSED_LIMIT = re.compile(
    r"(?:unsupported|unrecognized|unknown|unexpected|extra)[^{}]{0,120}max_tokens"
    r"|max_tokens[^{}]{0,120}(?:unsupported|unrecognized|unknown|unexpected|deprecated|extra)"
    r"|max_tokens[^{}]{0,120}not (?:be )?(?:supported|permitted|allowed)|\buse\W{0,4}max_completion_tokens",
    re.IGNORECASE,
)
TOO_LARGE = re.compile(
    r"too (?:large|big|long|wide|high|many (?:pixels|tokens|images?))|exceed|larger than|longer than"
    r"|max(?:imum)?[ _](?:\w+[ _])?(?:size|dimensions?|pixels|resolution|length)|context (?:length|window|size)"
    r"|decompression bomb",
    re.IGNORECASE,
)


@dataclass
class Shape:
    """The form of a request: the longest side of its picture in pixels, and the name of the token limit."""

    side: int
    limit: str

    def adapt(self, refused: RefusedError) -> bool:
        """Change what the server refused; False where there is nothing left to change."""
        if refused.code not in REFUSING:
            return False
        if self.limit == "max_tokens" and REFUSED_LIMIT.search(refused.text):
            self.limit = "max_completion_tokens"
            return True
        if self.side > SMALLEST_SIDE and (refused.code == 413 or TOO_LARGE.search(refused.text)):
            self.side = max(SMALLEST_SIDE, self.side // 2)
            return True
        return False


class ServerCaptioner:
    """Any OpenAI-compatible server of vision-language models (vLLM, TGI, llama.cpp, ...), asked in parallel.

    Args:
        model_id: the model's name on the server.
        request: prompt and sampling.
        api_base: URL up to and with `/v1`. The key, if any, is `OPENAI_API_KEY` of the environment.
        concurrency: requests in flight.
        timeout: seconds that a request may take in all.
        tries: requests an image is worth, pauses doubling in between (429's Retry-After is honoured).
    """

    backend = "openai"

    def __init__(self, model_id, request=None, api_base="", concurrency=8, timeout=120.0, tries=8):
        self.model_id, self.request, self.url = model_id, request or CaptionRequest(), api_base.rstrip("/")
        self.concurrency, self.timeout, self.tries = concurrency, timeout, tries
        self.stop, self.guard = threading.Event(), threading.Lock()
        self.limit = "max_tokens"  # newer OpenAI models require max_completion_tokens
        self.accepted = False  # whether the server accepted one of our requests
        self.wrong = None  # the server's reason, if it refuses all requests
        self.begins_in_reasoning = False  # whether the chat template opens the model's reasoning

    def identity(self) -> dict:
        """Return `model_id`; the revision is known from answers only, and recorded with each."""
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and " " not in self.url
            good = good and parts.path.isascii() and parts.hostname.encode("idna")  # as http.client sends them
            secret = parts.username is not None or parts.password is not None or parts.query or parts.fragment
        except ValueError:
            good, secret = False, "@" in self.url
        if secret:
            raise CaptionError("api_base holds more than an address: give the key in OPENAI_API_KEY of the environment")
        if not good:
            raise CaptionError(
                f"api_base {self.url!r} is not a URL such as http://localhost:8000/v1 (other letters: %C3%A9)"
            )
        if not 0 < self.timeout < threading.TIMEOUT_MAX:
            raise CaptionError(f"timeout {self.timeout} is not a number of seconds")
        if not (api_key().isascii() and api_key().isprintable()):  # http.client's error would print it
            raise CaptionError("OPENAI_API_KEY of the environment holds more than printable ASCII: set it again")
        return {"model_id": self.model_id, "revision": None}

    def captions(self, items: Iterable) -> Iterator[list]:
        """Yield outcomes as they arrive, in any order."""
        inbox, outbox, in_flight = queue.SimpleQueue(), queue.SimpleQueue(), 0
        self.stop = threading.Event()
        for _ in range(self.concurrency):  # daemons, so that Ctrl-C does not wait for the slowest answer
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
                image_id, image = item
                outbox.put(self._ask(image_id, image, stop))
            except Exception as error:  # raised again where the answers are read
                outbox.put(error)

    def _ask(self, image_id, image, stop):
        """Return a caption or a failure; raise CaptionError where the server or the request is at fault."""
        side = self.request.max_image_side or MAX_IMAGE_SIDE
        shape = Shape(min(max(image.size), side, LARGEST_JPEG), self.limit)
        tries, most, pause = 0, self.tries, 0.0
        while True:
            try:
                return self._read(image_id, self._post(image, shape, tries))
            except UnusableAnswerError as error:
                refused, most, pause = RefusedError(str(error)), min(most, ANSWER_TRIES), 0.0
            except RefusedError as error:
                if shape.adapt(error):
                    continue
                refused, pause = error, min(MAX_PAUSE_S, BACKOFF_S * 2**tries) * random.uniform(0.5, 1.5)
            tries += 1
            if not refused.again or tries >= most:
                break
            if stop.wait(max(pause, refused.pause and refused.pause + random.random() * BACKOFF_S)):
                break
        if refused.code in REFUSING:
            self._refuse_wrong_request(shape, refused)
        count = f"{tries} tries" if tries > 1 else "1 try"
        if refused.server:
            remedy = "Captions so far are kept: repair the server and run the same command again"
            raise CaptionError(f"{self.url}, after {count}: {refused}. {remedy}")
        reason = f"{image_id}: no caption from the server after {count}: {refused}"
        return Failure(image_id, without_key(reason, api_key()))

    def _refuse_wrong_request(self, shape, refused):
        """Raise CaptionError if the server answered nothing yet and does not take a plain picture, either."""
        from PIL import Image

        with self.guard:  # if many requests are refused at once, only one sends the plain picture
            if not self.accepted and self.wrong is None:
                try:
                    self._post(Image.new("RGB", (SMALLEST_SIDE, SMALLEST_SIDE), (128, 128, 128)), shape, 0)
                except RefusedError:
                    self.wrong = str(refused)
        if self.wrong is not None:
            remedy = "A plain picture fares no better: change --model, --prompt or the sampling to what it takes"
            raise CaptionError(f"{self.url} refuses the request: {self.wrong}. {remedy}")

    def _post(self, image, shape, tries):
        file = io.BytesIO()
        fitted(image, shape.side).save(file, "jpeg", quality=95)
        url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        request = self.request
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": request.prompt}]
        body = {"model": self.model_id, "messages": [{"role": "user", "content": content}]}
        body |= {"temperature": request.temperature, "top_p": request.top_p, shape.limit: request.max_new_tokens}
        if request.seed is not None:
            body["seed"] = request.seed + tries  # another seed, so that an empty answer is not repeated
        data = post(f"{self.url}/chat/completions", json.dumps(body).encode(), api_key(), self.timeout)
        self.accepted, self.limit = True, shape.limit
        return data

    def _read(self, image_id, data):
        """Return the caption in an answer's JSON.

        Raises:
            UnusableAnswerError, RefusedError: the answer holds none, or is no answer.
        """
        key, request = api_key(), self.request
        try:
            answer = json.loads(secretless(data.decode("utf-8-sig"), key))
            if answer.get("error") and not answer.get("choices"):
                raise refused_with_200(answer["error"], key)
            choice, usage = answer["choices"][0], answer.get("usage") or {}
            end, tokens, revision = choice.get("finish_reason"), usage.get("completion_tokens"), answer.get("model")
            text = secretless(clean_text(content_of(choice["message"], end)), key)
        except UnusableAnswerError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise RefusedError(f"malformed answer ({type(error).__name__}: {error})") from None
        tokens = tokens if type(tokens) is int and 0 <= tokens < 1 << 31 else None
        truncated = str(end).lower() in CUT or (end is None and tokens is not None and tokens >= request.max_new_tokens)
        self.begins_in_reasoning |= began_in_reasoning(text)
        in_reasoning = truncated and self.begins_in_reasoning
        caption = caption_in(text, request.prompt, request.min_words, request.max_new_tokens, truncated, in_reasoning)
        revision = " ".join(secretless(clean_text(revision), key).split())[:200] if isinstance(revision, str) else ""
        return Caption(image_id, secretless(caption, key), truncated, tokens, revision or "unknown")


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
    """Yield outcomes, then raise the error if there is one."""
    yield [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    for error in outcomes:
        if isinstance(error, Exception):
            raise error


__all__ = ["ServerCaptioner"]
