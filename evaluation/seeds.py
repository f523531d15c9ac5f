"""Does system B beat system A? Both are trained with several seeds and measured on the same images.

Two things are drawn by chance: the seeds of training and the images of the evaluation. An interval over one of them
alone is too narrow. Here both are resampled (a bootstrap of crossed factors: Owen, Annals of Applied Statistics, 2007),
so the interval covers what other seeds *and* other images would give.
"""

from typing import NamedTuple

import numpy as np

from .outcomes import Outcomes
from .significance import by_image, draws


class Gain(NamedTuple):
    """The mean of B minus the mean of A, with its interval."""

    mean: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether B is better: the whole interval lies above 0."""
        return self.low > 0


def shares_of_images(outcomes: Outcomes, metric: str) -> np.ndarray:
    """What each image adds to a metric: (N,) numbers whose mean is the metric.

    An image's share has its own query and those of its captions. All images must have equally many queries; otherwise
    the metric of resampled images is not the mean of their shares.

    Args:
        outcomes: of one model.
        metric: a mean or a sum of means, such as `rsum` or `mean_recall`.

    Raises:
        ValueError: no such metric, or images with different numbers of queries.
    """
    table = by_image(outcomes)
    if metric not in table.all_names:
        raise ValueError(f"no metric {metric!r} with shares; there are {', '.join(table.all_names)}")
    weights = table.mixing[:, table.all_names.index(metric)]
    used = table.counts[:, weights != 0]
    if (used != used[:1]).any():
        raise ValueError(f"{metric}: the images have different numbers of captions, so their shares have no mean")
    per_query = np.divide(table.totals, table.counts, out=np.zeros_like(table.totals), where=table.counts > 0)
    return per_query @ weights


def gain(a: np.ndarray, b: np.ndarray, samples: int = 10_000, level: float = 0.99, seed: int = 0) -> Gain:
    """Mean difference of two systems, with an interval over seeds and images.

    Args:
        a: (S, N) shares of N images in S runs of system A.
        b: (S', N) of system B, on the same images. Seeds of the two systems are drawn independently.
        samples: number of bootstrap samples.
        level: the interval's share of the samples.
        seed: of the draws.

    Raises:
        ValueError: fewer than two runs of a system, or other images.
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if min(len(a), len(b)) < 2:
        raise ValueError(f"{len(a)} and {len(b)} runs: an interval over seeds needs at least two of each system")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"the two were measured on different images ({a.shape[1]} and {b.shape[1]})")
    drawn = 0
    for runs, sign, own in ((a, -1, seed + 1), (b, 1, seed + 2)):
        images, seeds = draws(a.shape[1], samples, seed), draws(len(runs), samples, own)
        seeds = np.concatenate(list(seeds)) / len(runs)
        start, means = 0, []
        for weights in images:  # a block of samples, the same images for both systems
            means.append((seeds[start : start + len(weights)] @ runs * weights).mean(1))
            start += len(weights)
        drawn = drawn + sign * np.concatenate(means)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Gain(float(b.mean() - a.mean()), float(low), float(high))


__all__ = ["Gain", "gain", "shares_of_images"]
