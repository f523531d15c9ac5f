"""Local parquet is read some rows at a time, whatever its groups of rows; the rows are those of `datasets`."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import load_dataset_builder
from pyarrow import parquet

from vsehub.data import loading, parquet_parts
from vsehub.data.parquet_parts import read_in_parts, rows_of_a_part


@pytest.fixture
def folder(tmp_path):
    """Two files of one group of rows each, the second with its columns in another order."""
    rng = np.random.default_rng(0)
    for number, count in enumerate((2_300, 700)):
        pictures = [{"bytes": rng.bytes(100), "path": None} for _ in range(count)]
        columns = {"image": pictures, "captions": [[f"{number} {row}", "b"] for row in range(count)]}
        names = sorted(columns, reverse=bool(number))
        parquet.write_table(pa.table({name: columns[name] for name in names}), tmp_path / f"train-{number}.parquet")
    return tmp_path


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_are_those_that_datasets_reads(folder, streaming, tmp_path_factory):
    builder = load_dataset_builder(str(folder))
    builder.download_and_prepare(str(tmp_path_factory.mktemp("cache")))
    whole = builder.as_dataset("train")
    read = loading.load_split(str(folder), "train", streaming=streaming)
    assert list(read) == list(whole)


@pytest.mark.parametrize("streaming", [False, True])
def test_columns_and_rows_are_those_that_the_card_of_a_dataset_chooses(tmp_path, streaming):
    parquet.write_table(pa.table({"number": [1, 2, 3], "more": ["a", "b", "c"]}), tmp_path / "train.parquet")
    choice = "  data_files: train.parquet\n  columns: [number]\n  filters: [[number, '<', 3]]\n"
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n{choice}---\n")
    read = loading.load_split(str(tmp_path), "train", streaming=streaming)
    assert list(read) == [{"number": 1}, {"number": 2}]


def test_one_group_of_rows_is_read_in_parts(folder, monkeypatch):
    builder = read_in_parts(load_dataset_builder(str(folder)))
    files = builder.config.data_files["train"]
    sizes = [table.num_rows for _, table in builder._generate_tables(files)]
    assert sizes == [1000, 1000, 300, 700]
    assert [table.num_rows for _, table in builder._generate_tables([files])] == sizes  # as datasets 4.0 asks
    monkeypatch.setattr(parquet_parts, "BYTES", 20_000)
    assert max(table.nbytes for _, table in builder._generate_tables(files)) < 25_000


def test_rows_of_many_bytes_are_read_one_by_one(tmp_path):
    parquet.write_table(pa.table({"image": [b"a"] * 5}), tmp_path / "a.parquet")
    metadata = parquet.read_metadata(tmp_path / "a.parquet")
    assert rows_of_a_part(metadata) == parquet_parts.ROWS

    class Large:
        num_rows, num_row_groups = 2, 1

        def row_group(self, number):
            return type("Group", (), {"total_byte_size": 2**40})

    assert rows_of_a_part(Large()) == 1


def test_a_builder_of_another_kind_stays_as_it_is():
    class Other:
        config = None

    assert not vars(read_in_parts(Other()))
