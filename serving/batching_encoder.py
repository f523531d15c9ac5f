"""One thread embeds for all requests: what arrives while a batch is computed is the next batch.

So nothing waits for a batch to fill, and the model, whose tokenizer refuses two threads at once, is used by one.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any

import torch

from ..processing.encoders import Encoder

AT_ONCE = {"text": 64, "image": 16}  # items of one batch
WAITING = 128  # jobs that are looked at together


@dataclass
class Job:
    """Items of one kind to embed, or a function to call; and the future of the result."""

    kind: str  # `text`, `image` or `call`
    items: list
    future: Future = field(default_factory=Future)


class BatchingEncoder(Encoder):
    """An encoder that may be used by many threads at once; their texts and pictures are embedded together.

    Args:
        encoder: the one that embeds.
        seconds: how long a request may take.
        observe: called with the kind and the number of items of each batch.
    """

    def __init__(self, encoder: Encoder, seconds: float = 60.0, observe: Callable[[str, int], Any] | None = None):
        self.encoder, self.seconds = encoder, seconds
        self.observe = observe or (lambda kind, count: None)
        self.model, self.processor, self.name = encoder.model, encoder.processor, encoder.name
        self.text_limit, self.width, self.config = encoder.text_limit, encoder.width, encoder.config
        self.identity, self.dimension = encoder.identity, encoder.dimension
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="vsehub model", daemon=True)
        self._thread.start()

    @property
    def tokenizer(self):
        """Of the texts."""
        return self.encoder.tokenizer

    def with_width(self, width: int | None) -> "BatchingEncoder":
        """This encoder; it keeps the width with which it was made.

        Raises:
            ValueError: another width.
        """
        if width not in (None, self.dimension):
            raise ValueError(f"the server was started with {self.dimension} numbers of an embedding: start it again")
        return self

    def encode_text(self, texts, batch_size: int = AT_ONCE["text"]) -> torch.Tensor:
        """Embed texts: unit vectors (N, D), float32 on the CPU; see `Encoder.encode_text`.

        Raises:
            TimeoutError: it took more than `seconds`; and what `Encoder.encode_text` raises.
        """
        return self._embedded("text", list(texts), batch_size)

    def encode_image(self, images, batch_size: int = AT_ONCE["image"]) -> torch.Tensor:
        """Embed PIL images: unit vectors (N, D), float32 on the CPU; see `encode_text`."""
        return self._embedded("image", list(images), batch_size)

    def call(self, function: Callable[[], Any]):
        """The result of a function that uses the model or the tokenizer, computed between two batches."""
        return self._results([Job("call", [function])])[0]

    def close(self):
        """End the thread when it has answered what waits."""
        self._jobs.put(None)
        self._thread.join()

    def _embedded(self, kind: str, items: list, size: int) -> torch.Tensor:
        if not items:
            return torch.empty(0, self.dimension, dtype=torch.float32, device="cpu")
        size = min(size, AT_ONCE[kind])
        return torch.cat(self._results([Job(kind, items[at : at + size]) for at in range(0, len(items), size)]))

    def _results(self, jobs: list[Job]) -> list:
        end = time.monotonic() + self.seconds
        for job in jobs:
            self._jobs.put(job)
        try:
            return [job.future.result(max(0.0, end - time.monotonic())) for job in jobs]
        except FutureTimeoutError:  # until Python 3.11 it is no TimeoutError
            raise TimeoutError(f"the model did not answer within {self.seconds:g} s: send it again later") from None
        finally:
            for job in jobs:
                job.future.cancel()

    def _work(self):
        while True:
            waiting = [self._jobs.get()]
            with contextlib.suppress(queue.Empty):
                while len(waiting) < WAITING:
                    waiting.append(self._jobs.get_nowait())
            for kind in ("call", "text", "image"):
                jobs = [job for job in waiting if job is not None and job.kind == kind]
                for batch in batches(jobs, AT_ONCE.get(kind, 1)):
                    self._answer(kind, [job for job in batch if job.future.set_running_or_notify_cancel()])
            if None in waiting:
                return

    def _answer(self, kind: str, jobs: list[Job]):
        """Compute the results of some jobs together; where that fails, of each alone, so that one spoils no other."""
        if not jobs:
            return
        try:
            results = self._computed(kind, jobs)
        except Exception as error:  # of a text or picture that the model refuses
            if len(jobs) > 1:
                for job in jobs:
                    self._answer(kind, [job])
                return
            jobs[0].future.set_exception(error)
            return
        for job, result in zip(jobs, results):
            job.future.set_result(result)

    def _computed(self, kind: str, jobs: list[Job]) -> Iterable:
        if kind == "call":
            return [job.items[0]() for job in jobs]
        items = [item for job in jobs for item in job.items]
        encode = self.encoder.encode_text if kind == "text" else self.encoder.encode_image
        vectors = encode(items)
        self.observe(kind, len(items))
        return vectors.split([len(job.items) for job in jobs])


def batches(jobs: list[Job], most: int) -> Iterable[list[Job]]:
    """Jobs in groups of at most `most` items; a larger job is a group of its own."""
    group: list[Job] = []
    for job in jobs:
        if group and sum(len(one.items) for one in [*group, job]) > most:
            yield group
            group = []
        group.append(job)
    if group:
        yield group


__all__ = ["BatchingEncoder", "batches"]
