"""Classes that a dataset numbers, as their names: what people ask for, and what two datasets have in common."""

import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Value

from .columns import in_order, parts_of, with_column

NO_CLASS = -1  # what `datasets` keeps in the place of a class that is not known, as in many test splits


def with_class_names(rows: Dataset, data: str) -> Dataset:
    """Turn the columns of numbered classes (`ClassLabel`) into texts; a row without a class has None.

    Args:
        rows: of a source.
        data: its name, for errors.

    Raises:
        ValueError: a number that no class has.
    """
    for column, feature in (rows.features or {}).items():
        if isinstance(feature, ClassLabel):
            rows = in_order(rows)
            names = (_names(part, feature.names, f"{data}: column {column!r}") for part in parts_of(rows, column))
            rows = with_column(rows, column, pa.string(), names)
    return rows


def class_name(number: int | None, names: list[str], what: str = "a column of classes") -> str | None:
    """The name of one class; None where there is none.

    Raises:
        ValueError: a number that no class has.
    """
    if number is None or number == NO_CLASS:
        return None
    if not 0 <= number < len(names):
        raise ValueError(
            f"{what} holds the class {number}, and there are {len(names)}, from 0: repair it, or write names as texts"
        )
    return names[number]


def named_class(value, feature) -> str | None:
    """The name of the class in a cell; None where the cell is empty (None, NaN, an empty text).

    Args:
        value: a name, or a number.
        feature: of the column, which may have names for numbers.
    """
    if value is None or value != value:
        return None
    if isinstance(feature, ClassLabel):
        return class_name(value, feature.names)
    whole = isinstance(value, float) and value.is_integer()  # as a table writes numbers that has empty cells
    return str(int(value) if whole else value) or None


def holds_classes(column: str, feature, data: str, needed: bool) -> bool:
    """Whether a column holds one class in each cell.

    Raises:
        ValueError: it does not, and scene classes are needed.
    """
    if isinstance(feature, (ClassLabel, Value)):
        return True
    if needed:
        raise ValueError(
            f"{data}: column {column!r} holds {type(feature).__name__}, and a picture has one scene class: name a "
            "column of texts or numbers with --label_column, or do without: --affiliation_weight 0"
        )
    return False


def _names(numbers: pa.Array, names: list[str], what: str) -> pa.Array:
    known = pc.if_else(pc.equal(numbers, NO_CLASS), None, numbers)
    try:
        return pa.array(names, pa.string()).take(known)
    except pa.ArrowIndexError:
        return pa.array([class_name(number, names, what) for number in known.to_pylist()])  # raises


__all__ = ["NO_CLASS", "class_name", "holds_classes", "named_class", "with_class_names"]
