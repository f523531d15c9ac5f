"""`vsehub index export`: rows in words and as JSON; what cannot be exported."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from vsehub.search.vector_index import VectorIndex


@pytest.fixture
def index(tmp_path):
    made = VectorIndex.create(tmp_path / "index", {"id": "org/model", "revision": None, "digest": "a" * 64})
    made.add(np.random.default_rng(0).standard_normal((5, 4)), [{"id": f"photo {n}"} for n in range(5)])
    return made


def test_rows_are_written_and_told(vsehub, vsehub_json, index, tmp_path):
    out = tmp_path / "new" / "vectors.parquet"
    said = vsehub("index", "export", index.folder, "--out", out)
    assert said == f"{out}: 5 rows of 4 numbers; compare them by cosine\n"
    assert pq.read_metadata(out).num_rows == 5
    told = vsehub_json("index", "export", "--index", index.folder, "--out", out)
    assert told == {"out": str(out), "rows": 5, "dimension": 4}


def test_what_cannot_be_written_is_one_line(vsehub, index, tmp_path):
    VectorIndex.create(tmp_path / "empty")
    for folder, out, said in (
        (tmp_path / "empty", tmp_path / "x", "is empty"),
        (index.folder, tmp_path, "is a folder: name a file"),
        (tmp_path, tmp_path / "x", "holds no index"),
    ):
        assert said in vsehub("index", "export", folder, "--out", out, status=2)
    assert "invalid choice: 'csv'" in vsehub("index", "export", index.folder, "--out", "x", "--to", "csv", status=2)


def test_flags_that_would_change_nothing_are_refused(vsehub, index):
    for words, said in (
        (("--table", "x"), "--table changes nothing without --to lance"),
        (("--images", "."), "--images changes nothing without --to geoparquet"),
        (("--to", "parquet", "--out", "lance://db/x"), "--to changes nothing without a file or folder as --out"),
        (("--to", "lance", "--table", "t", "--out", "lance://db/x"), "--table changes nothing without a folder"),
    ):
        assert said in vsehub("index", "export", index.folder, "--out", "x", *words, status=2)
