import numpy as np
import pytest
from datasets import Dataset

from vsehub.data import columns
from vsehub.data.dense_texts import with_dense

ROWS = {"image_id": ["a", "b", "c"], "captions": [["one ", "two"], [], ["three"]]}


def test_a_table_is_matched_by_id_and_its_last_line_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "PART", 2)
    table = {"image_id": ["c", "a", "x", "a"], "dense_text": ["for c", "old", "none", "for a"]}
    Dataset.from_dict(table).to_parquet(tmp_path / "dense.parquet")
    rows = with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / "dense.parquet"))
    assert rows["dense_text"] == ["for a", None, "for c"]


def test_line_k_is_for_the_kth_row_that_counts(tmp_path):
    (tmp_path / "d.jsonl").write_text('{"text": "first"}\n{"text": "second"}\n')
    rows = with_dense(Dataset.from_dict(ROWS), np.array([0, 2]), str(tmp_path / "d.jsonl"))
    assert rows["dense_text"] == ["first", None, "second"]


def test_the_union_and_columns():
    assert with_dense(Dataset.from_dict(ROWS), np.arange(3), "union")["dense_text"] == ["one two", "", "three"]
    rows = Dataset.from_dict({**ROWS, "long": list("xyz"), "dense_text": list("uvw")})
    assert with_dense(rows, np.arange(3), "long")["dense_text"] == list("xyz")
    with pytest.raises(ValueError, match="--dense_text COLUMN"):
        with_dense(Dataset.from_dict(ROWS), np.arange(3), "long")
