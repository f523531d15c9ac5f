"""Dates as texts of ISO 8601, and as numbers that compare as the dates do, whatever their precision and time zone."""

import datetime
import re
from collections.abc import Iterable
from functools import cache

DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?"
    r"(Z|[+-]\d\d(?::?\d\d)?(?::\d\d)?)?)?)?)?",
    re.ASCII | re.IGNORECASE,
)
FULL = len("2024-06-01")
EPOCH = datetime.datetime(1970, 1, 1)
REMEDY = "write '2024-06-01' or '2024-06-01T12:30:00+02:00'"


@cache
def instant(text: str) -> tuple[int, bool] | None:
    """Microseconds since 1970 of a date and whether it names its time zone; without one, it is as in UTC.

    `2024` and `2024-06` are their first moments. None for a text that is no date.
    """
    match = DATE.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (
        int(part or start) for part, start in zip(match.groups(), (0, 1, 1, 0, 0, 0))
    )
    try:
        moment = datetime.datetime(year, month, day, hour, minute, second, int((match[7] or "")[:6].ljust(6, "0")))
    except ValueError:  # the 31st of February
        return None
    microseconds = (moment - EPOCH) // datetime.timedelta(microseconds=1)
    return microseconds - 1_000_000 * _seconds(match[8] or "Z"), match[8] is not None


def _seconds(zone: str) -> int:
    """Seconds that a time zone is before UTC."""
    digits = re.sub(r"\D", "", zone).ljust(6, "0")
    seconds = 3600 * int(digits[:2]) + 60 * int(digits[2:4]) + int(digits[4:])
    return -seconds if zone[0] == "-" else seconds


def instants(texts: Iterable) -> tuple[list[int | None], set[bool]] | None:
    """`instant` of all texts of a column, and whether they name time zones; None where they are not all dates."""
    found: list[int | None] = []
    zones: set[bool] = set()
    for text in texts:
        moment = instant(text) if isinstance(text, str) and len(text) >= FULL else None
        if moment is None and text is not None:
            return None
        found.append(None if moment is None else moment[0])
        zones |= set() if moment is None else {moment[1]}
    return (found, zones) if zones else None


__all__ = ["REMEDY", "instant", "instants"]
