"""Which rows of an index may be hits: conditions on the fields of its items, applied before the ranking.

A condition is written as in Python: `size > 100_000 and collection == "photos"`, `label in ("boat", "pier")`,
`caption is not None`. Besides the index's own fields it knows the columns of the dataset that a row came from; a column
whose name has blanks or the like is `field("cloud cover")`, and one that is called as a field of the index is
`column("size")`. Dates are compared as dates.
"""

import ast
import fnmatch
import io
import json
import keyword
import operator
import os
import re
import tokenize
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .dates import REMEDY, instant, instants
from .index_segments import SCHEMA
from .rows import Rows

COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
WORDS = {"and", "or", "not", "in", "is", "None", "True", "False"}  # of Python that a condition has; others are names
RESERVED = "reserved_name_"
LARGEST = 2**63 - 1  # of the whole numbers that a column holds
HINT = 'write it as in Python: width >= 1000 and label == "boat" (== for equal, quotes around texts and dates)'


class _UnclearError(ValueError):
    """A condition that does not mean what it seems to; the message says what to write."""


def chosen_rows(
    snapshot: Rows, among: str | None = None, where: str | pc.Expression | None = None, path: str | None = None
) -> np.ndarray | None:
    """Rows that meet all conditions, boolean (all rows,); None where there is no condition.

    Args:
        snapshot: of the index.
        among: `image` or `text`.
        where: a condition on fields, as text or as an expression of pyarrow. A field without a value meets none
            but `is None`.
        path: pattern of the path, as in `path_matches`.

    Raises:
        ValueError: an unknown modality or field, a condition that cannot be read or does not fit the field's type.
    """
    if among not in (None, "image", "text"):
        raise ValueError(f"among is `image`, `text` or None, not {among!r}")
    masks = []
    if among is not None:
        masks.append(np.array(snapshot.column("modality"), object) == among)
    if where is not None:
        masks.append(_meets(snapshot, where))
    if path is not None:
        masks.append(path_matches(snapshot.column("path"), path))
    return reduce(np.logical_and, masks) if masks else None


def path_matches(paths: list[str | None], pattern: str) -> np.ndarray:
    """Which paths match a pattern: `*` any characters, `/` too; without `/` in front, it may begin at any folder.

    A pattern that ends with `/` is a folder: all in it.
    """
    pattern = os.path.expanduser(pattern).replace(os.sep, "/")
    pattern = re.sub(r"^(\./)+", "", pattern) + ("*" if pattern.endswith("/") else "")  # `./photos/` is a folder
    rooted = pattern.startswith(("/", "*")) or bool(re.match("[A-Za-z]:/", pattern))
    matches = re.compile(fnmatch.translate(pattern if rooted else f"*/{pattern}")).match
    return np.array([path is not None and matches(path.replace(os.sep, "/")) is not None for path in paths], bool)


def expression(text: str, dates: dict[str, set[bool]] | None = None) -> tuple[pc.Expression, set[str]]:
    """A condition and the names of the fields in it.

    Args:
        text: of the condition.
        dates: fields that hold dates, which are numbers (`dates.instants`), and whether these name time zones.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        tree = _Dates(dates or {}).visit(_parsed(text.strip()))
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        return _condition(tree), names
    except _UnclearError as error:
        raise ValueError(f"the condition {text!r} cannot be read: {error}") from None
    except OverflowError:
        raise ValueError(f"the condition {text!r} has too large a number: write one up to {LARGEST}") from None
    except (SyntaxError, tokenize.TokenError, RecursionError, MemoryError, ValueError, TypeError, pa.ArrowException):
        raise ValueError(f"the condition {text!r} cannot be read: {HINT}") from None


def _parsed(text: str) -> ast.expr:
    """The tree of a condition; words that Python reserves (`class`) and `field("...")` are names of fields in it."""
    tokens = [(token.type, token.string) for token in tokenize.generate_tokens(io.StringIO(text).readline)]
    reserved = [kind == tokenize.NAME and keyword.iskeyword(word) and word not in WORDS for kind, word in tokens]
    if any(reserved):
        text = tokenize.untokenize(
            (kind, RESERVED + word if own else word) for (kind, word), own in zip(tokens, reserved)
        ).strip()
    return _Names().visit(ast.parse(text, mode="eval").body)


class _Names(ast.NodeTransformer):
    """Puts the names of fields at the place of what Python has no names for."""

    def visit_Name(self, node):  # noqa: N802
        return ast.Name(node.id.removeprefix(RESERVED))

    def visit_Call(self, node):  # noqa: N802
        if not isinstance(node.func, ast.Name) or node.func.id not in ("field", "column"):
            return node
        how = node.func.id
        name = node.args[0].value if len(node.args) == 1 and isinstance(node.args[0], ast.Constant) else None
        if not isinstance(name, str) or node.keywords:
            raise _UnclearError(f'a column is named as in `{how}("cloud cover")`')
        return ast.Name(name if how == "field" else of_dataset(name))


class _Dates(ast.NodeTransformer):
    """Puts numbers at the place of the dates that a field of dates is compared with."""

    def __init__(self, dates: dict[str, set[bool]]):
        self.dates = dates
        self._zones: set[bool] | None = None  # those of the fields in the comparison that is read

    def visit_Compare(self, node):  # noqa: N802
        names = [side.id for side in (node.left, *node.comparators) if isinstance(side, ast.Name)]
        zones = [self.dates[name] for name in names if name in self.dates]
        if not zones or all(isinstance(how, (ast.Is, ast.IsNot)) for how in node.ops):
            return node
        if len(zones) < len(names):  # dates are numbers here, and would be compared with its numbers
            other, date = (next(name for name in names if (name in self.dates) is known) for known in (False, True))
            raise _UnclearError(f"{date} is a date, and {other} is none: compare it with one, {REMEDY}")
        self._zones = set().union(*zones)
        if len(self._zones) > 1:
            raise _UnclearError(f"{' and '.join(names)}: dates with and without a time zone are not comparable")
        node = self.generic_visit(node)
        self._zones = None
        return node

    def visit_Constant(self, node):  # noqa: N802
        if self._zones is None or node.value is None:
            return node
        moment = instant(node.value) if isinstance(node.value, str) else None
        if moment is None:
            raise _UnclearError(f"{node.value!r} is no date: {REMEDY}")
        if moment[1] and True not in self._zones:
            raise _UnclearError(f"the dates of the index have no time zone: leave out that of {node.value!r}")
        return ast.Constant(moment[0])


def _condition(node) -> pc.Expression:
    if isinstance(node, ast.BoolOp):
        join = operator.and_ if isinstance(node.op, ast.And) else operator.or_
        return reduce(join, map(_condition, node.values))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return ~_condition(node.operand)
    if isinstance(node, ast.Name):
        return pc.field(node.id)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        return reduce(operator.and_, map(_comparison, sides, node.ops, sides[1:]))
    raise ValueError("no condition")


def _comparison(left, how, right) -> pc.Expression:
    if isinstance(how, (ast.Is, ast.IsNot)):
        if not isinstance(right, ast.Constant) or right.value is not None:
            raise ValueError("`is` goes with None")
        return _side(left).is_null() if isinstance(how, ast.Is) else _side(left).is_valid()
    if isinstance(how, (ast.In, ast.NotIn)):
        inside = _inside(left, how, right)
        return inside if isinstance(how, ast.In) else ~inside
    for side, other in ((left, right), (right, left)):
        if isinstance(side, ast.Constant) and side.value is None:
            word = "is not" if isinstance(how, ast.NotEq) else "is"
            raise _UnclearError(f"write `{ast.unparse(other)} {word} None`")
    return COMPARISONS[type(how)](_side(left), _side(right))


def _inside(left, how, right) -> pc.Expression:
    """Whether a side is among some values; null where it has no value, so that `not` does not select it."""
    words = f"{ast.unparse(left)} {'in' if isinstance(how, ast.In) else 'not in'}"
    if isinstance(right, ast.Constant):
        raise _UnclearError(f"one value in a list needs a comma: write `{words} ({ast.unparse(right)},)`")
    if not isinstance(right, (ast.List, ast.Tuple, ast.Set)):
        raise _UnclearError(f'a list of values comes after `in`: write it as in `{words} ("boat", "pier")`')
    side, values = _side(left), ast.literal_eval(right)
    if None in values:
        more = f" and add `or {ast.unparse(left)} is None`" if isinstance(how, ast.In) else ""
        raise _UnclearError(f"None is no value: leave it out of the list{more}")
    inside = side.isin(list(values)) if values else pc.scalar(False)
    return pc.if_else(side.is_valid(), inside, pa.scalar(None, pa.bool_()))


def _side(node) -> pc.Expression:
    return pc.field(node.id) if isinstance(node, ast.Name) else pc.scalar(ast.literal_eval(node))


def _meets(snapshot: Rows, where: str | pc.Expression) -> np.ndarray:
    if isinstance(where, str):
        condition, names = expression(where)
        table, dates = _with_instants(_table(snapshot, names))
        condition = expression(where, dates)[0] if dates else condition
    else:
        condition, table = where, _table(snapshot, None)
    unknown = "No match for FieldRef"
    try:
        table = table.append_column("vsehub row", pa.array(np.arange(len(table))))
        rows = table.filter(condition)["vsehub row"].to_numpy()
    except pa.ArrowException as error:
        if unknown in str(error):
            known = ", ".join(name for name in table.column_names if name != "vsehub row")
            why = "that is not there, or not of one type"
            raise ValueError(f"the condition names a field {why}; there are {known}") from None
        raise ValueError(f"the condition does not fit the fields' types: {str(error).splitlines()[0]}") from None
    kept = np.zeros(len(table), bool)
    kept[rows] = True
    return kept


def _with_instants(table: pa.Table) -> tuple[pa.Table, dict[str, set[bool]]]:
    """A table whose columns of dates are numbers, and for each of these whether its dates name time zones."""
    dates = {}
    for place, name in enumerate(table.column_names):
        if name not in SCHEMA.names and pa.types.is_string(table.schema.field(name).type):
            found = instants(table[name].to_pylist())
            if found is not None:
                table, dates[name] = table.set_column(place, name, pa.array(found[0], pa.int64())), found[1]
    return table, dates


def of_dataset(name: str) -> str:
    """How a condition names a column of the dataset, whatever the index has under this name."""
    return f"column({json.dumps(name, ensure_ascii=False)})"


def _table(snapshot: Rows, names: set[str] | None) -> pa.Table:
    """The fields of these names (None: all) of all rows."""
    own = [name for name in SCHEMA.names if name != "fields"]
    columns = {name: snapshot.chunks(name) for name in own if names is None or name in names}
    more = None if names is None else names - set(own)
    if more is None or more:
        known = zip(snapshot.column("fields"), snapshot.alive)  # what deleted rows held is no field
        rows = [json.loads(text) if text and alive else {} for text, alive in known]
        there = {name if name not in own else of_dataset(name): name for row in rows for name in row}
        for name in there if more is None else sorted(more):
            key = there.get(name) or next((key for key in there.values() if of_dataset(key) == name), None)
            if key is None:
                raise ValueError(f"the index has no field {name!r}; it has {', '.join([*own, *there])}")
            try:
                columns[name] = _column(name, [row.get(key) for row in rows])
            except ValueError:
                if names is not None:  # otherwise the condition may be on other fields
                    raise
    return pa.table(columns or {"id": snapshot.chunks("id")})


def _column(name: str, values: list) -> pa.Array:
    try:
        return pa.array(values)
    except OverflowError:
        raise ValueError(f"the field {name!r} has too large numbers: a condition on it is not possible") from None
    except pa.ArrowException:  # numbers in one source, texts in another
        raise ValueError(f"the field {name!r} has values of several types: a condition on it is not possible") from None


__all__ = ["chosen_rows", "expression", "of_dataset", "path_matches"]
