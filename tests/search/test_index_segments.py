"""Segments: items as a table, vectors of length 1, both written, mapped and refused."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vsehub.search import index_segments
from vsehub.search.index_segments import SCHEMA, Segment, items_table, unit, write_vectors
from vsehub.search.index_store import IndexFolderError


def test_items_are_rows_of_the_schema_and_what_is_not_given_is_null():
    table = items_table([{"id": "a", "box": [0, 1, 2, 3]}, {"id": "b", "caption": "a boat", "row": 7}])
    assert table.schema == SCHEMA
    assert table.to_pylist()[1] == dict.fromkeys(SCHEMA.names) | {"id": "b", "caption": "a boat", "row": 7}


def test_items_of_an_earlier_version_have_no_fields(tmp_path):
    write_vectors(tmp_path / "v.npy", [(unit([[3, 4]]), None)], 2)
    pq.write_table(items_table([{"id": "a", "size": 5}]).drop_columns("fields"), tmp_path / "i.parquet")
    table = Segment.open(tmp_path, ("v.npy", "i.parquet")).table
    assert table.schema == SCHEMA and table.to_pylist()[0]["size"] == 5


def test_a_table_of_many_row_groups_is_one_chunk_of_which_rows_are_taken_at_once(tmp_path):
    write_vectors(tmp_path / "v.npy", [(unit(np.eye(9)), None)], 9)
    pq.write_table(items_table([{"id": str(n)} for n in range(9)]), tmp_path / "i.parquet", row_group_size=2)
    table = Segment.open(tmp_path, ("v.npy", "i.parquet")).table
    assert table["id"].num_chunks == 1 and table["id"].to_pylist() == list("012345678")


@pytest.mark.parametrize(
    ("items", "said"),
    [
        ([{"id": "a", "colour": "red"}], "no field 'colour'; they have id, path"),
        ([{"path": "a"}], "every item needs an id"),
        ([{"id": ""}], "every item needs an id"),
        ([{"id": 3}], "every item needs an id, a text that is not empty, not 3"),
        ([{"id": "a"}, {"id": "b"}, {"id": "c"}, {"id": "b"}], "id 'b' is given twice"),
    ],
)
def test_items_that_no_table_can_hold_are_named(items, said):
    with pytest.raises(ValueError, match=said):
        items_table(items)


def test_vectors_become_length_1_in_float32_even_where_squares_overflow():
    found = unit([[3, 4], [1e30, 1e30], [1e-30, 0]])
    assert found.dtype == np.float32
    assert found == pytest.approx(np.array([[0.6, 0.8], [0.5**0.5] * 2, [1, 0]]), abs=1e-6)


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ([[1.0, 0.0], [0.0, 0.0]], "query 1 is zero"),
        ([[1.0, 0.0], [np.nan, 0.0]], "query 1 is not finite"),
        ([[np.inf, 0.0]], "query 0 is not finite"),
        ([1.0, 0.0], r"query: a matrix \(rows, dimension\) is needed, got shape \(2,\)"),
    ],
)
def test_vectors_that_nothing_can_be_near_are_named(vectors, said):
    with pytest.raises(ValueError, match=said):
        unit(vectors, "query")


@pytest.mark.parametrize("block", [1, 3, 16_384])
def test_kept_rows_of_several_arrays_are_one_file(tmp_path, monkeypatch, block):
    monkeypatch.setattr(index_segments, "BLOCK", block)
    rng = np.random.default_rng(0)
    first, second, third = (rng.normal(size=(rows, 4)).astype(np.float32) for rows in (5, 7, 0))
    kept = np.array([1, 0, 0, 1, 1, 1, 0], bool)
    write_vectors(tmp_path / "v.npy", [(first, None), (second[:, ::-1], kept), (third, None)], 4)
    assert np.array_equal(np.load(tmp_path / "v.npy"), np.concatenate([first, second[kept][:, ::-1]]))


@pytest.fixture
def files(tmp_path):
    write_vectors(tmp_path / "v.npy", [(np.eye(3, dtype=np.float32), None)], 3)
    pq.write_table(items_table([{"id": name} for name in "abc"]), tmp_path / "i.parquet")
    return tmp_path, ("v.npy", "i.parquet")


def test_a_segment_is_mapped_and_stays_readable_when_its_files_are_gone(files):
    folder, names = files
    segment = Segment.open(folder, names)
    for name in names:
        (folder / name).unlink()
    assert len(segment) == 3 and np.array_equal(segment.vectors, np.eye(3))
    assert segment.rows_of(pa.array(["c", "x", "a"])).tolist() == [0, 2]


def test_damaged_items_are_named_when_they_are_asked_for(files):
    folder, names = files
    (folder / "i.parquet").write_bytes(b"torn")
    segment = Segment.open(folder, names)
    with pytest.raises(IndexFolderError, match="i.parquet is damaged .*copy the index again, or build it again"):
        len(segment.table)
