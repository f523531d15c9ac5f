"""Metrics of ranked retrieval from counts, one value per query, several positives each.

A group of t items with one score, p of them positives, takes the places a + 1 ... a + t, where a items score higher.
Every value is the mean over all orders of the group, in closed form.

Worked example: 3 items of one score, 1 of them positive. Recall@1 is 1/3, and the positive's rank 2 on average.

    >>> group = TieGroups(np.array([0]), np.array([0]), np.array([3]), np.array([1]), 1)
    >>> round(float(recalls(group, 1)[0]), 3), float(first_ranks(group)[0])
    (0.333, 2.0)
"""

import numpy as np

from .counting import TieGroups


def best_groups(groups: TieGroups) -> TieGroups:
    """Each query's highest group."""
    first = np.r_[True, groups.query[1:] != groups.query[:-1]][: len(groups.query)]
    query, above, tied, positives = (column[first] for column in groups[:4])
    return TieGroups(query, above, tied, positives, groups.num_queries)


def recalls(groups: TieGroups, k: int) -> np.ndarray:
    """Probability that one of the first k items is a positive, (Q,).

    Of `tied` items m = min(k - above, tied) fall within the first k; none of the p positives among them is drawn with
    probability C(tied - p, m) / C(tied, m).
    """
    best = best_groups(groups)
    drawn = np.clip(k - best.above, 0, best.tied)
    missed = np.ones(len(best.query))
    for i in range(int(best.positives.max(initial=0))):
        factor = np.clip(best.tied - drawn - i, 0, None) / np.clip(best.tied - i, 1, None)
        missed *= np.where(i < best.positives, factor, 1.0)
    return _per_query(best, 1.0 - missed)


def first_ranks(groups: TieGroups) -> np.ndarray:
    """Rank of the best positive, from 1, (Q,): of p among t places, the first is (t + 1) / (p + 1) on average."""
    best = best_groups(groups)
    return _per_query(best, best.above + (best.tied + 1) / (best.positives + 1))


def r_precisions(groups: TieGroups) -> np.ndarray:
    """Share of positives among the first R items, R being the number of the query's positives, (Q,)."""
    relevant = _relevant(groups)[groups.query]
    places = np.clip(relevant - groups.above, 0, groups.tied)
    return _per_query(groups, groups.positives / groups.tied * places / relevant)


def average_precisions_at_r(groups: TieGroups) -> np.ndarray:
    """Average precision over the first R items (MAP@R is its mean; Musgrave et al., 2020, eq. 2), (Q,).

    With c positives before the group, the item in place a + j is a positive with probability p / t, and then has
    c + 1 + (j - 1) (p - 1) / (t - 1) of them up to it. Sums of 1 / (a + j) are differences of harmonic numbers.
    """
    relevant = _relevant(groups)[groups.query]
    places = np.clip(relevant - groups.above, 0, groups.tied)
    before = np.cumsum(groups.positives) - groups.positives
    before -= before[np.searchsorted(groups.query, groups.query)]
    harmonic = np.cumsum(np.r_[0.0, 1 / np.arange(1, relevant.max(initial=0) + 1)])
    start = np.minimum(groups.above, relevant)
    inverse = harmonic[start + places] - harmonic[start]
    slope = (groups.positives - 1) / np.clip(groups.tied - 1, 1, None)
    precision = (before + 1) * inverse + slope * (places - (groups.above + 1) * inverse)
    return _per_query(groups, groups.positives / groups.tied * precision / relevant)


def _relevant(groups: TieGroups) -> np.ndarray:
    """How many positives each query has, (Q,)."""
    return np.bincount(groups.query, groups.positives, groups.num_queries).astype(np.int64)


def _per_query(groups: TieGroups, values: np.ndarray) -> np.ndarray:
    return np.bincount(groups.query, values, groups.num_queries)


__all__ = [
    "average_precisions_at_r",
    "best_groups",
    "first_ranks",
    "r_precisions",
    "recalls",
]
