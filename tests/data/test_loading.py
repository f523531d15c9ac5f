"""Datasets with several configurations, and errors in the names of our flags."""

import io
import json
from contextlib import nullcontext

import pyarrow as pa
import pytest
from caption_folder import paint
from datasets import ClassLabel, Dataset, Features, Image, Value
from datasets.exceptions import DatasetNotFoundError
from pyarrow import parquet

from vsehub.__main__ import main
from vsehub.data import loading
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.data.sources import read_source
from vsehub.search.collection import Collection


def _png() -> bytes:
    buffer = io.BytesIO()
    paint(0).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = _png()
CARD = """---
configs:
- config_name: short
  data_files:
  - {split: train, path: short/train.parquet}
- config_name: dense
  data_files:
  - {split: train, path: dense/train.parquet}
---
"""


@pytest.fixture
def two_configs(tmp_path):
    root = tmp_path / "data"
    for name in ("short", "dense"):
        (root / name).mkdir(parents=True)
        rows = [{"image": {"bytes": PICTURE, "path": None}, "captions": [f"a {name} text"]}]
        Dataset.from_list(rows).to_parquet(str(root / name / "train.parquet"))
    (root / "README.md").write_text(CARD)
    return str(root)


def test_a_configuration_is_chosen(two_configs):
    rows = prepare_rows(DataArguments(data=two_configs, data_config="dense"), "train", None, need_dense=False)
    assert rows["captions"] == [["a dense text"]]
    collection = Collection(two_configs, "train", data_config="short")
    assert collection.rows["captions"] == [["a short text"]] and collection.name.endswith(":short:train")
    assert "data_config" not in Collection(two_configs, "train").settings  # an old index stays what it was


@pytest.mark.parametrize(
    ("config", "split", "said"),
    [
        (None, "train", "several configurations: choose one with --data_config; there are short, dense"),
        ("long", "train", "no configuration 'long': --data_config is one of short, dense"),
        ("short", "dev", "no split 'dev': choose one with --train_split, --eval_split or --split; there are train"),
        ("short", "dev[:5]", "no split 'dev"),
    ],
)
def test_errors_name_our_flags(two_configs, config, split, said):
    with pytest.raises(ValueError, match="data") as caught:
        read_source(two_configs, split, data_config=config)
    assert said in str(caught.value) and "load_dataset" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        "evaluate absent --split train --data",
        "check-leakage --split_b train",
        "teachers --image a --text b --out o --copy train --data",
        "caption --model m --out o.parquet",
        "index --split train --model m --out o",
        "train --vision v --text t --data",
        "train pir --vision v --text t --data",
    ],
)
def test_every_verb_that_reads_datasets_takes_the_flag(words, two_configs, monkeypatch, tmp_path, capsys):
    """Where it is left out, the error names it: the flag reaches the reader in each verb."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("vsehub.evaluation.evaluate.load_errors", nullcontext)  # models are looked for first
    for script in ("run_d2s", "run_pir"):
        monkeypatch.setattr(f"vsehub.training.{script}.preflight", lambda stages: None)
    assert main([*words.split(), two_configs, "--data_config", "long"]) == 2
    assert "--data_config is one of short, dense" in capsys.readouterr().err


def test_a_file_has_no_configurations(two_configs, tmp_path):
    with pytest.raises(ValueError, match="has no configurations; leave it out"):
        read_source(f"{two_configs}/short/train.parquet", "train", data_config="short")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DatasetNotFoundError("Dataset 'a/b' is a gated dataset on the Hub. Visit ..."), "gated.*hf auth login"),
        (DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub or cannot be accessed."), "private.*auth login"),
        (ConnectionError("Couldn't reach 'a/b' on the Hub"), "nor to be had from the Hub"),
        (RuntimeError("Dataset scripts are no longer supported, but found b.py"), "no code of a dataset is run here"),
        (ValueError("... pass the argument `trust_remote_code=True` ..."), "no code of a dataset is run here"),
    ],
)
def test_what_the_hub_refuses_has_a_remedy(monkeypatch, error, said):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(loading, "load_dataset_builder", refuse)
    with pytest.raises((ValueError, OSError), match=said):
        read_source("a/b", "train")


def test_a_table_of_pictures_lies_in_parts_of_a_thousand_rows(tmp_path):
    """In parts of 100, as `datasets` would write them, a million rows take 50 MB more in each process."""
    features = Features({"image": Image(), "captions": Value("string")})
    rows = {"image": [{"bytes": b"%d" % number, "path": None} for number in range(2_500)], "captions": ["a"] * 2_500}
    Dataset.from_dict(rows, features).to_parquet(str(tmp_path / "train.parquet"), batch_size=2_000)
    table = loading.load_split(str(tmp_path), "train").data.table
    assert [part.num_rows for part in table.to_batches()] == [1000, 1000, 500]
    assert table.column("image").chunk(2)[499]["bytes"].as_py() == b"2499"


def test_tables_of_another_format_are_read_as_ever(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"captions": "one"}\n')
    assert loading.load_split(str(tmp_path), "train")["captions"][:] == ["one"]


@pytest.mark.parametrize("name", ["a?b", "a*b", "x[1]", "a!b"])
def test_a_path_names_one_file_and_no_pattern(tmp_path, name):
    for each, caption in ((name, "mine"), ("aXb", "another")):
        rows = [{"image": {"bytes": PICTURE, "path": None}, "captions": [caption]}]
        Dataset.from_list(rows).to_parquet(str(tmp_path / f"{each}.parquet"))
        Dataset.from_dict({"image_id": ["0"], "dense_text": [caption]}).to_parquet(str(tmp_path / f"{each}-d.parquet"))
        (tmp_path / f"{each}.jsonl").write_text(json.dumps({"captions": [caption]}) + "\n")
        (tmp_path / each).mkdir()
        (tmp_path / each / "0.png").write_bytes(PICTURE)
        (tmp_path / each / "metadata.csv").write_text(f"file_name,captions\n0.png,{caption}\n")
    for streaming in (False, True):
        args = DataArguments(data=str(tmp_path / f"{name}.parquet"), streaming=streaming)
        assert prepare_rows(args, "train", None, need_dense=False)["captions"] == [["mine"]]
    args = DataArguments(data=args.data, dense_text=str(tmp_path / f"{name}-d.parquet"))
    assert prepare_rows(args, "train", None, need_dense=True)["dense_text"] == ["mine"]
    assert read_source(str(tmp_path / f"{name}.jsonl"), "train")["captions"] == [["mine"]]
    assert read_source(str(tmp_path / name), "train")["captions"] == ["mine"]


def test_a_path_that_cannot_be_named_is_one_line(tmp_path):
    folder = tmp_path / "x[1]"
    folder.mkdir()
    Dataset.from_dict({"captions": ["a"]}).to_parquet(str(folder / "train.parquet"))
    with pytest.raises(ValueError, match=r"x\[1\]: its files cannot be found.*rename it"):
        read_source(str(folder), "train")
    (folder / "train.parquet").rename(tmp_path / "a::b.parquet")
    with pytest.raises(ValueError, match="a::b.parquet: a path with `::` .*rename it"):
        read_source(str(tmp_path / "a::b.parquet"), "train")


def test_a_table_without_rows_is_told(tmp_path):
    parquet.write_table(pa.table({"captions": ["a"]})[:0], tmp_path / "none.parquet")
    with pytest.raises(ValueError, match="none.parquet: split 'train' cannot be read .a file without rows"):
        read_source(str(tmp_path / "none.parquet"), "train")


@pytest.fixture
def splits(tmp_path):
    """A function: columns of train and of validation -> a folder with a file for each split."""

    def write(train, validation):
        for split, columns in (("train", train), ("validation", validation)):
            parquet.write_table(pa.table(columns), tmp_path / f"{split}.parquet")
        return str(tmp_path)

    return write


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        ({"id": [1]}, {"id": ["x1"]}, "column 'id' is int64 in split 'train' .*and string in split 'validation' "),
        ({"a": ["b"]}, {"a": [["b"]]}, "column 'a' is string in split 'train' .*and list<.*: string> in split 'valid"),
        ({"a": [b"b"]}, {"a": [{"bytes": b"b"}]}, "column 'a' is binary in split 'train' .*and struct<bytes: binary> "),
        ({"a": ["b"], "l": [1]}, {"a": ["b"], "l": [1.5]}, "column 'l' is int64 .*and double in split 'validation' "),
        ({"a": ["b"]}, {"a": ["b"], "l": [1]}, "column 'l' is in split 'validation' .* and not in split 'train' "),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_splits_whose_columns_differ_are_told_by_column_split_and_type(splits, train, validation, said, split, capfd):
    with pytest.raises(
        ValueError, match=said + r".*: write it with one type|" + said + ".*: write it in all"
    ) as caught:
        read_source(splits(train, validation), split)
    assert "\n" not in str(caught.value) and "Failed to read" not in capfd.readouterr().err


def test_files_of_one_split_whose_columns_differ_are_told_by_their_names(tmp_path):
    for number, value in enumerate(([1], ["x"])):
        parquet.write_table(pa.table({"id": value}), tmp_path / f"train-0000{number}-of-00002.parquet")
    with pytest.raises(
        ValueError, match=r"int64 in split 'train' \(train-00000-of-.*string in split 'train' \(train-00001"
    ):
        read_source(str(tmp_path), "train")


def test_a_column_that_only_the_first_split_has_is_empty_in_the_others(splits):
    folder = splits({"a": ["b"], "l": [1]}, {"a": ["b"]})
    assert read_source(folder, "validation")["l"] == [None] and read_source(folder, "train")["l"] == [1]


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_that_number_their_classes_otherwise_are_refused(tmp_path, streaming):
    """All would be named as the first split names them: an airport would be a beach, and nobody would know."""
    for split, names in (("train", ["airport", "beach"]), ("validation", ["beach", "airport"])):
        rows = {"image": [PICTURE], "captions": ["a"], "label": [0]}
        features = Features({"image": Value("binary"), "captions": Value("string"), "label": ClassLabel(names=names)})
        Dataset.from_dict(rows, features).to_parquet(str(tmp_path / f"{split}.parquet"))
    args = DataArguments(data=str(tmp_path), streaming=streaming)
    with pytest.raises(ValueError, match="column 'label' numbers its classes otherwise in split 'train' .*one list"):
        prepare_rows(args, "validation", None, need_dense=False)
    args = DataArguments(data=str(tmp_path / "{split}.parquet"))
    assert prepare_rows(args, "validation", None, need_dense=False)["label"] == ["beach"]
