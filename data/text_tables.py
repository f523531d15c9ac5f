"""Tables of text: CSV, TSV and JSON lines.

In CSV and TSV a value is what is written; only columns of nothing but plain numbers become numbers. So an id `007`, a
caption `NA` and a class `true` stay as they are, whatever the first rows look like.
"""

import csv
import re
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value
from pandas.errors import ParserWarning

from .columns import TEXTS, in_order, parts_of, spans, with_column
from .loading import ending_of, literal, load_split

SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}  # by the ending of the name; of several, the commonest in the first line
WHOLE = "^-?(0|[1-9][0-9]{0,17})$"
NUMBER = r"^-?(0|[1-9][0-9]{0,17})(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"


def read_text_table(path: Path, data: str) -> Dataset:
    """Read a table in UTF-8 whose first line names the columns.

    Args:
        path: of the file, `.csv` or `.tsv`.
        data: how the user named it, for errors.

    Raises:
        ValueError: no UTF-8, no first line, two columns of one name, or a row with more values than columns.
    """
    names, separator = _header(path, data)
    options = {"sep": separator, "column_names": names, "features": Features({name: Value("string") for name in names})}
    options |= {"header": 0, "index_col": False, "na_filter": False, "skipinitialspace": True, "encoding": "utf-8-sig"}
    with warnings.catch_warnings():
        warnings.simplefilter("error", ParserWarning)  # values that have no column would be left out
        try:
            rows = in_order(load_split(data, "train", path="csv", data_files=literal(path), **options))
        except ValueError as error:
            if re.search(r"Length of header|Expected \d+ fields", str(error)):
                more = f"{data}: a row has more values than the first line has names"
                raise ValueError(f'{more}: write "..." around values that hold a {separator!r}') from None
            raise
    for name in names:
        if kind := _number_kind(rows, name):
            parts = (_numbers(part, kind) for part in parts_of(rows, name))
            rows = with_column(rows, name, kind, parts)
    return rows


def _header(path: Path, data: str) -> tuple[list[str], str]:
    """The names of the columns, and what stands between two values."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline()
            separator = max(SEPARATORS[ending_of(path)], key=line.count)
            file.seek(0)
            names = [name.strip() for name in next(csv.reader(file, delimiter=separator, skipinitialspace=True), [])]
    except UnicodeDecodeError:
        raise ValueError(f"{data} is not in UTF-8: save it again in that encoding") from None
    except csv.Error as error:
        raise ValueError(f"{data}: its first line cannot be read ({error})") from None
    names = [name or f"unnamed_{number}" for number, name in enumerate(names)]  # as the numbers of rows by pandas
    if not names:
        raise ValueError(f"{data} is empty: its first line must name the columns")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{data}: several columns have the name {', '.join(twice)}: rename all but one")
    return names, separator


def _number_kind(rows: Dataset, name: str) -> pa.DataType | None:
    """What a column of nothing but numbers holds: int64, float64; None for another one."""
    whole, some = True, False
    for part in parts_of(rows, name):
        texts = part.filter(pc.not_equal(part, ""))
        if not pc.all(pc.match_substring_regex(texts, NUMBER), min_count=0).as_py():
            return None
        some = some or len(texts) > 0
        whole = whole and pc.all(pc.match_substring_regex(texts, WHOLE), min_count=0).as_py()
    return (pa.int64() if whole else pa.float64()) if some else None


def _numbers(part: pa.Array, kind: pa.DataType) -> pa.Array:
    return pc.cast(pc.if_else(pc.equal(part, ""), pa.scalar(None, part.type), part), kind)


def read_json_lines(path: Path, data: str) -> Dataset:
    """Read JSON lines, one object a row.

    Raises:
        ValueError: they cannot be read.
    """
    rows = load_split(data, "train", path="json", data_files=literal(path))
    for name, feature in rows.features.items():
        if type(feature).__name__ == "Json" and (kind := _text_kind(rows, name)):
            rows = in_order(rows)
            parts = (pa.array(rows[start:stop][name], kind) for start, stop in spans(rows))
            rows = with_column(rows, name, kind, parts)
    return rows


def _text_kind(rows: Dataset, name: str) -> pa.DataType | None:
    """What a column that `datasets` takes for mixed holds: texts, lists of texts, or (None) really several things.

    A NaN among texts, which json.dumps writes for a missing value, makes `datasets` take them for mixed; it reads None.
    """
    values = [value for value in rows[name] if value is not None]
    if all(isinstance(value, str) for value in values):
        return pa.string()
    lists = all(isinstance(value, list) and all(isinstance(text, str) for text in value) for value in values)
    return TEXTS if lists else None


__all__ = ["SEPARATORS", "read_json_lines", "read_text_table"]
