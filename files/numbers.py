"""Numbers of a command line or a recipe: each type reads a text and refuses what is out of range.

argparse shows the message of such a type behind the flag's name: one line, before any work.
"""

import argparse
import math
from collections.abc import Callable

MOST = 2**31 - 1  # what every library behind a flag can count to
SHOWN = 40  # characters of a wrong value in an error


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """The type of integers from `least` to `most`."""
    bounds = f"of at least {least}" if most == MOST else f"from {least} to {most}"
    return lambda text: _in_range(text, int, f"a whole number {bounds}", lambda value: least <= value <= most)


def number(least: float = -math.inf, most: float = math.inf, above: float | None = None, below: float | None = None):
    """The type of finite numbers from `least` to `most`; `above` and `below` are bounds that are themselves refused."""
    parts = [
        f"of at least {least:g}" if least > -math.inf and most == math.inf else "",
        f"from {least:g} to {most:g}" if most < math.inf and least > -math.inf else "",
        f"of at most {most:g}" if most < math.inf and least == -math.inf else "",
        f"above {above:g}" if above is not None else "",
        f"below {below:g}" if below is not None else "",
    ]
    bounds = " and ".join(part for part in parts if part)
    low, high = -math.inf if above is None else above, math.inf if below is None else below
    return lambda text: _in_range(
        text, float, f"a number {bounds}".strip(), lambda value: least <= value <= most and low < value < high
    )


def _in_range(text: str, kind: type, expected: str, fits: Callable):
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = math.nan
    if not fits(value):
        shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
        raise argparse.ArgumentTypeError(f"must be {expected}, not {shown}")
    return value


positive_int = whole(1)
natural_int = whole(0)
positive_float = number(above=0)
natural_float = number(0)
finite = number()
fraction = number(0, 1)
rate = number(0, below=1)  # of what is dropped: something must be left
inner_fraction = number(above=0, below=1)
seed = whole(0, 2**32 - 1)  # numpy's range
workers = whole(1, 1024)  # threads, processes, requests in flight
pixels = whole(1, 16_384)  # a side of what a model sees: its tokens grow with the square
epochs = number(0, 1_000_000)

__all__ = [
    "MOST", "epochs", "finite", "fraction", "inner_fraction", "natural_float", "natural_int", "number", "pixels",
    "positive_float", "positive_int", "rate", "seed", "whole", "workers",
]  # fmt: skip
