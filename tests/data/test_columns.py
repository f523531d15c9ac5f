"""Columns in parts and in mapped files: the same values as lists, and no memory of their own."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from vsehub.data import columns
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows


@pytest.fixture
def two_at_a_time(monkeypatch):
    monkeypatch.setattr(columns, "PART", 2)


def test_a_column_is_replaced_part_by_part_and_survives_pickling(two_at_a_time):
    rows = Dataset.from_dict({"image": list("abcde"), "n": [1, 2, 3, 4, 5]})
    doubled = (pa.array([2 * value for value in part.to_pylist()]) for part in columns.parts_of(rows, "n"))
    rows = columns.with_column(rows, "n", pa.int64(), doubled)
    again = pickle.loads(pickle.dumps(rows.select([4, 0])))
    assert rows["n"] == [2, 4, 6, 8, 10] and again["n"] == [10, 2] and again["image"] == ["e", "a"]
    assert columns.chosen_of(rows, "n", np.array([3, 1])).to_pylist() == [8, 4]
    some = columns.scattered(rows, np.array([1, 4]), ["x", "y"], pa.string())
    assert [part.to_pylist() for part in some] == [[None, "x"], [None, None], ["y"]]


def test_texts_become_lists_and_nulls_empty_ones():
    assert columns.lists_of(pa.array(["a", None, "b"])).to_pylist() == [["a"], [], ["b"]]
    assert columns.lists_of(pa.array([["a", "b"], None, ["c"]])).to_pylist() == [["a", "b"], [], ["c"]]
    assert columns.lists_of(pa.nulls(2)).to_pylist() == [[], []]


def test_what_python_calls_blank_is_suspect():
    blank = ["", "  ", "\t\n", "\x1c", "\u2003\u3000", None]
    part = pa.array([["a"], *([text] for text in blank), [], ["b", " "], ["c", "d"]])
    assert columns.suspects(part).tolist() == [*range(1, 9)]
    assert columns.suspects(part.slice(7, 1), may_be_empty=True).tolist() == []
    assert columns.suspects(pa.array([[1], []])).tolist() == [0, 1]


def test_repeated_values_are_told(two_at_a_time):
    rows = Dataset.from_dict({"image_id": ["a", "b", "c", "b", "a"]})
    assert sorted(columns.repeats(rows, "image_id")) == ["a", "b"]
    assert columns.repeats(rows, "image_id", np.array([0, 1, 2])) == []
    assert columns.repeats(rows, "image_id", np.array([1, 2, 3])) == ["b"]


def test_lengths_follow_chosen_rows(two_at_a_time):
    rows = Dataset.from_dict({"captions": [["a"], ["b", "c"], [], ["d", "e", "f"]]})
    assert columns.list_lengths(rows, "captions").tolist() == [1, 2, 0, 3]
    assert columns.list_lengths(rows.select([3, 1, 0]), "captions").tolist() == [3, 2, 1]


def test_prepared_captions_take_no_memory_of_their_own(tmp_path):
    texts = [f"caption {row} " + "of many words " * 20 for row in range(4000)]
    images = [{"bytes": str(row).encode(), "path": None} for row in range(4000)]
    Dataset.from_dict({"image": images, "captions": texts, "number": range(4000)}).to_parquet(tmp_path / "t.parquet")
    args = DataArguments(data=str(tmp_path / "t.parquet"), id_column="number")
    before = pa.total_allocated_bytes()
    rows = prepare_rows(args, "train", None, need_dense=False, pictures_later=True)
    assert pa.total_allocated_bytes() - before < 200_000  # the texts are 1.1 MB
    assert rows[3999]["captions"] == [texts[3999]] and rows[7]["image_id"] == "7"
