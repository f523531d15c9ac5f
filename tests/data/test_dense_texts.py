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


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.csv", "image_id,dense_text\nc,for c\na,for a\n"),
        ("d.TSV", "image_id\tdense_text\nc\tfor c\na\tfor a\n"),
        ("d.jsonl", '{"image_id": "c", "dense_text": "for c"}\n{"image_id": "a", "dense_text": "for a"}\n'),
    ],
)
def test_every_table_of_ids_is_matched_by_them(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    rows = with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / name))
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


def test_dense_texts_that_are_lists_written_as_text_are_refused():
    rows = Dataset.from_dict({**ROWS, "long": ['["x", "y"]'] * 3})
    with pytest.raises(ValueError, match="column 'long' of the data holds lists that are written as text"):
        with_dense(rows, np.arange(3), "long")


@pytest.mark.parametrize("texts", [[["x"], ["y", "z"], []], [1, 2, 3], [["x", "y"]] * 3])
@pytest.mark.parametrize("column", ["dense_text", "long"])
def test_a_column_that_holds_no_texts_is_one_line(tmp_path, texts, column):
    rows = Dataset.from_dict({**ROWS, column: texts})
    with pytest.raises(ValueError, match=f"column '{column}' of the data holds .*, not a text in each row"):
        with_dense(rows, np.arange(3), column)
    Dataset.from_dict({"image_id": ["a", "b", "c"], "dense_text": texts}).to_parquet(tmp_path / "dense.parquet")
    with pytest.raises(ValueError, match="dense.parquet: column dense_text holds .*, not a text in each row"):
        with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / "dense.parquet"))


@pytest.mark.parametrize("name", ["nowhere.jsonl", "nowhere.parquet", "nowhere.csv"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"--dense_text .*{name}: no such file"):
        with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / name))


def test_a_table_may_have_an_address(tmp_path):
    Dataset.from_dict({"image_id": ["a"], "dense_text": ["for a"]}).to_parquet(tmp_path / "dense.parquet")
    rows = with_dense(Dataset.from_dict(ROWS), np.arange(3), (tmp_path / "dense.parquet").as_uri())
    assert rows["dense_text"] == ["for a", None, None]


def test_null_is_no_dense_text(tmp_path):
    rows = with_dense(Dataset.from_dict({**ROWS, "dense_text": [None] * 3}), np.arange(3), "dense_text")
    assert rows["dense_text"] == [None] * 3 and rows.features["dense_text"].dtype == "string"
    (tmp_path / "d.jsonl").write_text('{"text": "first"}\n{"text": null}\n{"text": "third"}\n')
    rows = with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / "d.jsonl"))
    assert rows["dense_text"] == ["first", None, "third"]
    (tmp_path / "d.jsonl").write_text('{"text": "first"}\n{"text": 5}\n{"text": "third"}\n')
    with pytest.raises(ValueError, match="d.jsonl:2: not a dense caption .'text' is 5, not a text"):
        with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / "d.jsonl"))


def test_a_table_of_other_pictures_is_told(tmp_path):
    Dataset.from_dict({"image_id": ["x", "y"], "dense_text": ["1", "2"]}).to_parquet(tmp_path / "dense.parquet")
    with pytest.raises(ValueError, match="dense.parquet: none of its ids is in the data .it has 'x', .* the data 'a'"):
        with_dense(Dataset.from_dict(ROWS), np.arange(3), str(tmp_path / "dense.parquet"))
