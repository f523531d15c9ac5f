"""The outcome of every query of an evaluation, from which metrics, intervals and comparisons are computed."""

from dataclasses import dataclass, field

import numpy as np

WAYS = ("image_to_text", "text_to_image")


@dataclass
class Outcomes:
    """The outcome of every query of an evaluation; metrics are means or medians over queries, or sums of these.

    Names begin with a way, `image_to_text` or `text_to_image`, perhaps after a prefix.
    """

    values: dict[str, np.ndarray] = field(default_factory=dict)  # metric -> (Q,) per cent, or ranks from 1
    images: dict[str, np.ndarray] = field(default_factory=dict)  # way -> (Q,) row of the image each query belongs to
    sums: dict[str, list[str]] = field(default_factory=dict)  # rsum and means of metrics -> the metrics

    def metrics(self) -> dict[str, float]:
        """Every metric: recalls and precisions in per cent, `rsum`, `mean_recall`, `..._median_rank`, ..."""
        metrics = {name: float((np.median if "median" in name else np.mean)(x)) for name, x in self.values.items()}
        return metrics | {name: weight * sum(metrics[p] for p in parts) for name, (parts, weight) in self.weighted()}

    def weighted(self) -> list[tuple[str, tuple[list[str], float]]]:
        """The sums with the weight of their parts: 1 for `rsum`, one over their number for means."""
        return [(name, (parts, 1.0 if name.endswith("rsum") else 1 / len(parts))) for name, parts in self.sums.items()]

    def images_of(self, name: str) -> np.ndarray:
        """The images that the queries of a metric belong to, (Q,)."""
        return self.images[next(way for way in WAYS if way in name)]


__all__ = ["WAYS", "Outcomes"]
