"""Numbered classes are read as their names; a row without a class (-1) has none, in every way of reading."""

import pyarrow as pa
import pytest
from datasets import ClassLabel, Features, Value
from photos import jpeg
from pyarrow import parquet

from vsehub.data.arguments import DataArguments
from vsehub.data.class_names import class_name
from vsehub.data.rows import prepare_rows
from vsehub.data.sources import read_source
from vsehub.data.streams import open_stream

NAMES = ["airport", "beach", "port"]
FEATURES = Features({"image": Value("binary"), "captions": Value("string"), "label": ClassLabel(names=NAMES)})


@pytest.fixture
def numbered(tmp_path):
    """A parquet file of pictures whose classes have these numbers."""

    def write(*numbers):
        rows = {"image": [jpeg(seed) for seed in range(len(numbers))], "captions": ["a"] * len(numbers)}
        table = pa.table({**rows, "label": list(numbers)}, schema=FEATURES.arrow_schema)
        parquet.write_table(table, tmp_path / "rows.parquet")
        return str(tmp_path / "rows.parquet")

    return write


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_of_class_minus_one_has_no_class(numbered, streaming):
    args = DataArguments(data=numbered(2, -1, None, 0), streaming=streaming)
    assert prepare_rows(args, "train", None, need_dense=False)["label"] == ["port", None, None, "airport"]


def test_a_stream_gives_names_too(numbered):
    stream = open_stream(DataArguments(data=numbered(1, -1), streaming=True), "train")
    assert [row["label"] for _, row in stream.rows_of(0, 0)] == ["beach", None]


@pytest.mark.parametrize("number", [3, -2])
def test_a_number_that_no_class_has_is_named_with_the_remedy(numbered, number):
    said = f"column 'label' holds the class {number}, and there are 3, from 0: .*write names as texts"
    with pytest.raises(ValueError, match=said):
        read_source(numbered(0, number), "train")
    with pytest.raises(ValueError, match=f"holds the class {number}"):
        class_name(number, NAMES)


def test_rows_of_a_slice_keep_their_classes(numbered):
    assert list(read_source(numbered(2, 1, 0, -1), "train[1:]")["label"]) == ["beach", "airport", None]
