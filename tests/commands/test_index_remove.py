"""`vsehub index remove`: a source leaves an index with its rows and remarks, and the others stay."""

import shutil

import pytest
from datasets import Dataset

from vsehub.files.bad_samples import read_bad_samples
from vsehub.search.vector_index import VectorIndex


@pytest.fixture
def two(vsehub, tiny_folder, tiny_pictures, pairs, tmp_path):
    """An index of a folder of two pictures and a torn one, and of four rows of a table."""
    (tmp_path / "photos").mkdir()
    for number, picture in enumerate(tiny_pictures[:2]):
        picture.save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "torn.png").write_bytes(b"torn")
    vsehub("index", tmp_path / "photos", "--model", tiny_folder, "--out", tmp_path / "index")
    vsehub("index", pairs, "--out", tmp_path / "index", "--update")
    return tmp_path / "index"


def test_a_renamed_folder_is_removed_by_the_name_that_it_had(two, vsehub, vsehub_json, pairs, tmp_path, monkeypatch):
    renamed = shutil.move(tmp_path / "photos", tmp_path / "renamed")
    monkeypatch.chdir(tmp_path)  # a source is named as it was, from here
    assert vsehub_json("index", "remove", two, "photos") == {"source": str(tmp_path / "photos"), "rows": 2}
    index = VectorIndex.open(two)
    assert list(index.sources) == [f"{pairs}:train"] and len(index) == 4
    assert read_bad_samples(two / "bad_samples.jsonl") == []
    assert "6 rows; 2 embedded" in vsehub("index", renamed, "--out", two, "--update")
    said = vsehub("index", "remove", two, "photos", status=2)
    assert f"no such source: name one of {pairs}:train, {renamed}" in said


def test_of_two_splits_one_is_removed_by_its_whole_name(vsehub, tiny_folder, pairs, tmp_path):
    (tmp_path / "data").mkdir()
    rows = Dataset.from_parquet(str(pairs))
    for split, part in (("train", range(2)), ("test", range(2, 4))):
        rows.select(part).to_parquet(str(tmp_path / "data" / f"{split}.parquet"))
    out = ("--out", tmp_path / "index")
    vsehub("index", tmp_path / "data", "--model", tiny_folder, *out)
    vsehub("index", tmp_path / "data", "--split", "test", "--update", *out)
    said = vsehub("index", "remove", tmp_path / "index", tmp_path / "data", status=2)
    assert f"several such sources: name one of {tmp_path}/data:train, {tmp_path}/data:test" in said
    assert "2 rows; 2 are left" in vsehub("index", "remove", tmp_path / "index", f"{tmp_path}/data:train")


def test_the_last_source_leaves_an_empty_index(two, vsehub, pairs, tmp_path):
    vsehub("index", "remove", two, tmp_path / "photos")
    vsehub("index", "remove", two, pairs)
    assert len(VectorIndex.open(two)) == 0 and VectorIndex.open(two).sources == {}
    assert "none" in vsehub("index", "remove", two, pairs, status=2)
    assert "2 rows; 2 embedded" in vsehub("index", tmp_path / "photos", "--out", two, "--update")


def test_an_index_without_sources_says_so(vsehub, tmp_path):
    VectorIndex.create(tmp_path / "made.index")
    said = vsehub("index", "remove", tmp_path / "made.index", "photos", status=2)
    assert "has no such source: `vsehub index` has added none to it" in said
