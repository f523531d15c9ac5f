"""What a server counts, in the text format of Prometheus."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of one server; each has its own registry."""

    def __init__(self):
        self.registry = CollectorRegistry()
        mine: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("vsehub_requests", "Requests by route and status.", ["route", "status"], **mine)
        self.seconds = Histogram(
            "vsehub_request_seconds",
            "From the first byte of a request to its answer.",
            ["route"],
            buckets=SECONDS,
            **mine,
        )
        self.answering = Gauge("vsehub_requests_in_progress", "Requests that are answered now.", **mine)
        self.batches = Histogram(
            "vsehub_batch_items", "Texts or pictures that were embedded together.", ["kind"], buckets=SIZES, **mine
        )
        self.rows = Gauge("vsehub_index_rows", "Items of the index.", **mine)
        self.generation = Gauge("vsehub_index_generation", "Changes of the index since it was made.", **mine)
        self.takeovers = Gauge("vsehub_index_takeovers", "Changes of the index since the server started.", **mine)

    def observe_batch(self, kind: str, count: int):
        """Count a batch of the model."""
        self.batches.labels(kind).observe(count)

    def text(self, live) -> bytes:
        """All counters, with those of a `LiveIndex`."""
        self.rows.set(len(live.now.index))
        self.generation.set(live.now.index.generation)
        self.takeovers.set(live.takeovers)
        return generate_latest(self.registry)


__all__ = ["Metrics"]
