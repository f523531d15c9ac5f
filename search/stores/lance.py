"""An index in a table of LanceDB, in a local folder or an object store.

Rows change in one new version of the table. What is known of the index is in the metadata of its vectors; facts that
change with rows, such as folders that the user named, follow in the next version. A snapshot reads its version
as long as LanceDB keeps it.
"""

import contextlib
import errno
import json
import os
import re
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..index_segments import SCHEMA
from ..index_store import IndexFolderError
from .row_tables import BLOCK, NUMBER, VECTOR, pieces, rows_schema
from .table import State, shortened

KEY = b"vsehub"  # of our metadata
MADE = "made"  # in it: a name of this table that no other has
ANSWERS = {  # of an object store
    "400": "are the region (AWS_REGION) and the keys in the environment right, and still valid?",
    "401": "it does not know the keys in the environment",
    "403": "the keys in the environment are wrong, or have no right to it",
    "404": "there is no such bucket",
}
IN_TIME = {"connect_timeout": "5s", "client_max_retries": "1", "client_retry_timeout": "10"}  # of an object store
COLUMNS = [*SCHEMA.names, NUMBER, VECTOR]
NAMED_AT_ONCE = 10_000  # ids in one condition
SCATTERED = 50  # parts of a table, one for each change, beyond which they are merged: each slows every search


class LanceTable:
    """A table; see `table.Table`.

    Args:
        address: as the user wrote it.
        base: folder of the database, or its URI in an object store, whose keys are in LanceDB's environment variables.
        name: of the table.
    """

    def __init__(self, address: str, base: str, name: str):
        self.address, self._base, self._name = address, base, name
        self._remote = "://" in base

    def check_kind(self, kind: str):
        """See `Table`."""
        if kind == "hnsw":
            raise ValueError(f"{self.address}: LanceDB is searched exactly; leave out --kind, or use --kind flat")

    def _database(self):
        """The database, or None where there is no folder."""
        if not self._remote and not Path(self._base).is_dir():
            if Path(self._base).exists():
                raise IndexFolderError(f"{self.address}: {self._base} is a file, and LanceDB needs a folder")
            return None  # to connect would make it
        return self._connected()

    def _connected(self):
        """The database; a folder that is not there is made."""
        return _lancedb().connect(self._base, storage_options=IN_TIME if self._remote else None)

    def _open(self):
        database = self._database()
        try:
            return None if database is None else database.open_table(self._name)
        except (ValueError, FileNotFoundError) as error:
            if "was not found" in str(error):
                return None
            raise

    def is_index(self) -> bool:
        """Whether there is a table that vsehub made, of whatever version."""
        with self.errors():
            table = self._open()
            return table is not None and _facts(table) is not None

    def stamp(self):
        """See `Table`."""
        with self.errors():
            table = self._open()
            return None if table is None else _stamp(table)

    def read(self) -> State | None:
        """See `Table`."""
        with self.errors():
            table = self._open()
            if table is None:
                return None
            version = table.version
            table.checkout(version)
            facts, stamp = _facts(table), _stamp(table)
        if facts is None:
            raise IndexFolderError(f"{self.address} is a table that vsehub did not make: name another")
        return State({**facts, "generation": version}, LanceView(self, table), stamp)

    def write(self, rows: pa.Table, facts: dict, new: bool):
        """See `Table`: one version of the table, and one more where the facts are others."""
        with self.errors():
            if new:
                facts = {**facts, MADE: uuid.uuid4().hex}
                schema = rows_schema(facts["dimension"], {KEY: json.dumps(facts)})
                self._connected().create_table(self._name, data=rows.cast(schema))
                return
            table = self._open()
            table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
            self._note(table, facts)
            with contextlib.suppress(OSError, RuntimeError):  # the rows are written: the next change merges them
                if table.stats()["fragment_stats"]["num_small_fragments"] > SCATTERED:
                    table.optimize()

    def remove(self, ids: list[str], facts: dict):
        """See `Table`: one version for each some thousand ids, and one more where the facts are others."""
        with self.errors():
            table = self._open()
            for part in pieces(ids, NAMED_AT_ONCE):
                table.delete(_among("id", map(_quoted, part)))
            self._note(table, facts)

    def note(self, facts: dict):
        """See `Table`."""
        with self.errors():
            self._note(self._open(), facts)

    def _note(self, table, facts: dict):
        known = _facts(table) or {}
        facts |= {MADE: known[MADE]} if MADE in known else {}
        if {**known, "generation": None} != {**facts, "generation": None}:  # that is the version
            table.update_field_metadata({"path": VECTOR, "metadata": {KEY.decode(): json.dumps(facts)}})

    def tidy(self, kind: str):
        """See `Table`; versions of the last seven days stay, since others may read them."""
        with self.errors():
            self._open().optimize()

    @contextlib.contextmanager
    def errors(self):
        """Turn an error of LanceDB into one line."""
        try:
            yield
        except (IndexFolderError, ImportError, MemoryError):
            raise
        except (ValueError, OSError, RuntimeError, pa.ArrowException) as error:
            raise IndexFolderError(f"{self.address}: LanceDB refuses ({_short(error)})") from None


class LanceView:
    """The rows of one version; see `table.View`."""

    def __init__(self, owner: LanceTable, table):
        self._owner, self._table = owner, table

    @cached_property
    def total(self) -> int:
        """See `View`."""
        numbers = self._read({NUMBER})[NUMBER]
        return (pc.max(numbers).as_py() + 1) if len(numbers) else 0

    def count(self, modality: str | None = None) -> int:
        """See `View`."""
        with self._owner.errors():
            return self._table.count_rows(None if modality is None else f"modality = {_quoted(modality)}")

    def nearest(
        self,
        query: np.ndarray,
        count: int,
        within: np.ndarray | None = None,
        without: np.ndarray | None = None,
        exact: bool = True,
    ) -> pa.Table:
        """See `View`; LanceDB's own vector indexes, if somebody made one, are not used."""
        with self._owner.errors():
            search = self._table.search(np.asarray(query, np.float32), vector_column_name=VECTOR)
            search = search.distance_type("dot").bypass_vector_index()
            if within is not None:
                search = search.where(_among(NUMBER, map(str, within.tolist())), prefilter=True)
            if without is not None:
                search = search.where(f"NOT {_among(NUMBER, map(str, without.tolist()))}", prefilter=True)
            return search.select([*COLUMNS, "_distance"]).limit(count).to_arrow().select(COLUMNS)

    def rows(self, numbers: np.ndarray) -> pa.Table:
        """See `View`."""
        return self._read(COLUMNS, _among(NUMBER, map(str, numbers.tolist())) if len(numbers) else "false")

    def numbers_of(self, ids: list[str]) -> np.ndarray:
        """See `View`."""
        return self._read({NUMBER}, _among("id", map(_quoted, ids)))[NUMBER].to_numpy()

    def columns(self, names: set[str], limit: int | None = None) -> pa.Table:
        """See `View`."""
        return self._read({NUMBER, *names}, limit=limit)

    def blocks(self) -> Iterator[pa.Table]:
        """See `View`."""
        numbers = np.sort(self._read({NUMBER})[NUMBER].to_numpy())
        for part in pieces(numbers, BLOCK):
            rows = self._read(COLUMNS, f"{NUMBER} >= {part[0]} AND {NUMBER} <= {part[-1]}")
            yield rows.sort_by(NUMBER)

    def _read(self, names, condition: str | None = None, limit: int | None = None) -> pa.Table:
        with self._owner.errors():
            search = self._table.search()
            if condition is not None:
                search = search.where(condition)
            return search.select(list(names)).limit(limit).to_arrow().select(list(names))


def _lancedb():
    try:
        import lancedb
    except ImportError:
        raise ImportError('an index at lance:// needs lancedb: pip install "vsehub[lance]"') from None
    return lancedb


def _facts(table) -> dict | None:
    """What is known of the index in a table; None where vsehub did not make it."""
    schema = table.schema
    metadata = (schema.field(VECTOR).metadata if VECTOR in schema.names else None) or {}
    try:
        facts = json.loads(metadata[KEY])
    except (KeyError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _stamp(table) -> tuple:
    """What changes with each change, and where a table is made again under the name of one that was removed."""
    return (_facts(table) or {}).get(MADE), table.version


def _quoted(text: str) -> str:
    """A text as SQL writes it."""
    return "'" + text.replace("'", "''") + "'"


def _among(column: str, values) -> str:
    return f"{column} IN ({','.join(values)})"


def _short(error: Exception) -> str:
    """The beginning of an error, without the links of an object store, which may hold keys."""
    answer = re.search(r"RetryError.*status: (4\d\d)", str(error), re.DOTALL)
    if answer and answer[1] in ANSWERS:
        code = re.search(r"<Code>(\w+)</Code>", str(error))
        return f"the object store answers {answer[1]}{f' {code[1]}' if code else ''}: {ANSWERS[answer[1]]}"
    if f"(os error {errno.ENOSPC})" in str(error):
        return os.strerror(errno.ENOSPC).lower()
    text = re.sub(r"[?&][\w.-]+=[^\s)]*", "", str(error).splitlines()[0] if str(error) else type(error).__name__)
    return shortened(text)


__all__ = ["LanceTable"]
