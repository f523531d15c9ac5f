"""Queries of several parts: what is looked for, plus and minus other texts and pictures, each with a weight."""

import math
import numbers
import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

# also what is no weight (`sunset:-0.5`, `sunset:nan`): as a text, it would be searched for in silence
WEIGHT = re.compile(r"(.+):([+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|nan|inf))", re.DOTALL | re.IGNORECASE)
LEAST_LENGTH = 1e-4  # of a sum of unit vectors; a shorter one is rounding


def with_weight(word: str) -> tuple[str, float]:
    """A part of a query and its weight: `sunset:0.5` is 0.5 of "sunset", `sunset` is all of it.

    Raises:
        ValueError: a weight that is not a number above 0.
    """
    match = WEIGHT.fullmatch(word)
    return checked((match[1], float(match[2])) if match else word)


def checked(part: Any) -> tuple[Any, float]:
    """(query, weight) of a part, which is a query or such a pair.

    Raises:
        ValueError: a weight that is not a number above 0, a number in place of a query, or a tuple that is no pair.
    """
    if isinstance(part, tuple) and len(part) != 2:
        raise ValueError(f'a part with its weight is a pair, as ("sunset", 0.5), not a tuple of {len(part)}')
    query, weight = part if isinstance(part, tuple) else (part, 1.0)
    if isinstance(query, numbers.Number):  # plus=("sunset", 0.5) is two parts
        raise ValueError(f'a part of a query is no number, as {query!r}: pairs are in a list, plus=[("sunset", 0.5)]')
    try:
        number = float(weight) if isinstance(weight, numbers.Real) and not isinstance(weight, bool) else math.nan
    except OverflowError:  # JSON has integers of any length
        number = weight = math.inf
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"the weight of {query!r} must be a number above 0, not {weight!r}")
    return query, number


def listed(parts: Any) -> list:
    """Parts as a list; a text or a picture alone is one part."""
    return [parts] if isinstance(parts, (str, bytes, os.PathLike)) or hasattr(parts, "getbands") else list(parts)


def combined(vectors: Iterable[tuple[np.ndarray, float]]) -> np.ndarray:
    """The normalised weighted sum of unit vectors (D,).

    Raises:
        ValueError: the parts cancel each other.
    """
    parts = list(vectors)
    largest = max(abs(weight) for _, weight in parts)
    total = sum(weight / largest * vector.astype(np.float64) for vector, weight in parts)
    length = np.linalg.norm(total)
    if not length > LEAST_LENGTH / max(1.0, largest):  # weights that are all small say the same as larger ones
        raise ValueError("the parts of the query cancel each other: nothing is left to look for")
    return (total / length).astype(np.float32)


__all__ = ["checked", "combined", "listed", "with_weight"]
