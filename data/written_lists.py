"""Lists that are written as text, as in tables that hold no lists (CSV): each would be read as one odd caption."""

import ast
import json
from collections.abc import Iterable
from itertools import islice

LOOKED_AT = 20  # texts, the first ones
LONGEST = 100_000  # characters of a text that is looked at


def refuse_written_lists(texts: Iterable[str | None], place: str):
    """Refuse a column whose first texts are all lists of texts, in the way of JSON or of Python.

    Args:
        texts: of the column, in order; those that are empty are passed over.
        place: which column it is, for the error.

    Raises:
        ValueError: they are such lists.
    """
    first = list(islice((text for text in texts if isinstance(text, str) and text.strip()), LOOKED_AT))
    if first and all(_is_list(text) for text in first):
        raise ValueError(
            f"{place} holds lists that are written as text, as {first[0][:40]!r}: make them lists (`datasets`: "
            "rows.map(lambda row: {column: json.loads(row[column])}), or ast.literal_eval), saved as parquet; or "
            "write one row for each caption"
        )


def _is_list(text: str) -> bool:
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]") and len(text) <= LONGEST):
        return False
    for read in (json.loads, ast.literal_eval):
        try:
            values = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return isinstance(values, list) and len(values) > 0 and all(isinstance(value, str) for value in values)
    return False


__all__ = ["refuse_written_lists"]
