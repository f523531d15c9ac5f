"""Bootstrap intervals of a metric and permutation tests between two models; the unit is the image with its captions.

Intervals are percentiles of the bootstrap over images (Efron and Tibshirani, 1993, ch. 13). The test swaps the
outcomes of the two models for some of the images; its p-value covers all swaps for up to 13 images and random ones
above (Phipson and Smyth, 2010: it is never 0).
"""

from typing import NamedTuple

import numpy as np

from .outcomes import Outcomes

AT_ONCE = 10_000_000  # random numbers


class Comparison(NamedTuple):
    """One metric of two models A and B."""

    a: float
    b: float
    difference: float  # b - a
    low: float  # of the difference's interval
    high: float
    p: float  # two-sided


class _ByImage(NamedTuple):
    """Sums over the queries of each image, so that metrics of resampled images are two matrix products."""

    totals: np.ndarray  # (N, M)
    counts: np.ndarray  # (N, M) queries
    names: list[str]  # M of metrics that are means
    mixing: np.ndarray  # (M, M + S) identity, and the sums of metrics
    all_names: list[str]


def intervals(
    outcomes: Outcomes, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Bootstrap interval of every metric but medians, whose bootstrap is unreliable where ranks repeat.

    Args:
        outcomes: of one model.
        samples: number of bootstrap samples.
        level: the interval's share of the samples.
        seed: of the draws.
    """
    table = by_image(outcomes)
    means = np.concatenate(
        [_means(weights, table.totals, table.counts) for weights in draws(len(table.totals), samples, seed)]
    )
    low, high = np.quantile(means @ table.mixing, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return {name: (float(a), float(b)) for name, a, b in zip(table.all_names, low, high)}


def compare_outcomes(
    a: Outcomes, b: Outcomes, samples: int = 1000, permutations: int = 10_000, level: float = 0.95, seed: int = 0
) -> dict[str, Comparison]:
    """Difference of two models on the same queries, metric by metric, with interval and p-value.

    Raises:
        ValueError: outcomes of other metrics or queries.
    """
    if set(a.values) != set(b.values) or a.sums != b.sums:
        odd = sorted({*a.values, *a.sums} ^ {*b.values, *b.sums})
        raise ValueError(f"the two have different metrics: only one has {', '.join(odd[:6])}")
    for way in a.images:
        if not np.array_equal(a.images[way], b.images[way]):
            raise ValueError(f"the two have different {way} queries")
    one, two = by_image(a), by_image(b)
    gap = two.totals - one.totals
    drawn = [_means(weights, gap, one.counts) for weights in draws(len(gap), samples, seed)]
    low, high = np.quantile(np.concatenate(drawn) @ one.mixing, [(1 - level) / 2, (1 + level) / 2], axis=0)
    observed = gap.sum(0) / one.counts.sum(0) @ one.mixing
    p = _permuted(gap / one.counts.sum(0) @ one.mixing, observed, permutations, seed)
    first, second = a.metrics(), b.metrics()
    return {
        name: Comparison(first[name], second[name], *map(float, row))
        for name, row in zip(one.all_names, np.stack([observed, low, high, p], axis=1))
    }


def by_image(outcomes: Outcomes) -> _ByImage:
    """Sums and numbers of queries of each image, metric by metric; medians are left out."""
    names = [name for name in outcomes.values if "median" not in name]
    rows = np.unique(np.concatenate([outcomes.images_of(name) for name in names]))
    totals, counts = np.zeros((2, len(rows), len(names)))
    for column, name in enumerate(names):
        place = np.searchsorted(rows, outcomes.images_of(name))
        totals[:, column] = np.bincount(place, outcomes.values[name], len(rows))
        counts[:, column] = np.bincount(place, minlength=len(rows))
    sums = outcomes.weighted()
    mixing = np.zeros((len(names), len(names) + len(sums)))
    mixing[:, : len(names)] = np.eye(len(names))
    for column, (_, (parts, weight)) in enumerate(sums, len(names)):
        mixing[[names.index(part) for part in parts], column] = weight
    return _ByImage(totals, counts, names, mixing, [*names, *(name for name, _ in sums)])


def draws(images: int, samples: int, seed: int):
    """How often each image is drawn: (samples, N), a block of samples at a time."""
    rng, step = np.random.default_rng(seed), max(1, AT_ONCE // images)
    for start in range(0, samples, step):
        count = min(step, samples - start)
        drawn = rng.integers(images, size=(count, images)) + images * np.arange(count)[:, None]
        yield np.bincount(drawn.reshape(-1), minlength=count * images).reshape(count, images).astype(np.float64)


def _means(weights: np.ndarray, totals: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means of the metrics, (samples, M); a metric without a query in a sample is 0."""
    asked = weights @ counts
    return np.divide(weights @ totals, asked, out=np.zeros_like(asked), where=asked > 0)


def _permuted(gaps: np.ndarray, observed: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Share of sign changes of the images' gaps (N, M) whose sum is as far from 0 as the observed one."""
    images = len(gaps)
    edge = np.abs(observed) - 1e-9 * np.abs(gaps).sum(0)  # tolerance for rounding
    if 2**images <= permutations:
        signs = 1.0 - 2 * (np.arange(2**images)[:, None] >> np.arange(images) & 1)
        return (np.abs(signs @ gaps) >= edge).mean(0)
    rng, step, hits = np.random.default_rng(seed), max(1, AT_ONCE // images), np.zeros(gaps.shape[1])
    for start in range(0, permutations, step):
        signs = 1.0 - 2 * rng.integers(2, size=(min(step, permutations - start), images), dtype=np.int8)
        hits += (np.abs(signs @ gaps) >= edge).sum(0)
    return (hits + 1) / (permutations + 1)


__all__ = ["Comparison", "compare_outcomes", "intervals"]
