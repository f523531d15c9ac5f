"""`vsehub compare`: a table or JSON; what cannot be compared."""

import json

import numpy as np
import pytest

from vsehub.evaluation.ranking import image_text_outcomes
from vsehub.evaluation.record import evaluation_record, record_json


@pytest.fixture
def records(tmp_path):
    """Two records of the same queries, and one of other data."""
    paths = []
    for seed, data in ((0, "sha256:1"), (1, "sha256:1"), (2, "sha256:2")):
        rng = np.random.default_rng(seed)
        found = image_text_outcomes(rng.normal(size=(9, 4)), rng.normal(size=(18, 4)), np.repeat(np.arange(9), 2))
        record = evaluation_record({"recall": found}, {"data_fingerprint": data, "split": "test"}, samples=20)
        paths.append(tmp_path / f"{seed}.json")
        paths[-1].write_text(record_json({"evaluation": record}))
    return paths


def test_a_table_json_and_both(records, vsehub, vsehub_json, tmp_path):
    words = ("compare", *records[:2], "--permutations", "99", "--samples", "50")
    said = vsehub(*words, "--level", "0.9")
    assert f"recall: A is {records[0]}, B is {records[1]}" in said and "90 % interval" in said
    assert "p-values fall below 0.05 by chance" in said
    row = vsehub_json(*words)["recall"]["rsum"]
    assert row["difference"] == pytest.approx(row["b"] - row["a"]) and row["low"] <= row["difference"] <= row["high"]
    assert vsehub(*words, "--json", tmp_path / "gap.json").startswith("recall: ")
    assert json.loads((tmp_path / "gap.json").read_text())["recall"]["rsum"] == row


def test_what_cannot_be_compared_is_one_line(records, vsehub, tmp_path):
    for words, said in (
        ((records[0],), "B is missing"),
        ((records[0], records[2]), "differ in data"),
        ((records[0], tmp_path / "none.json"), "no such file"),
        ((*records[:2], "--level", "1"), "level"),
        ((*records[:2], "--samples", "0"), "--samples: must be"),
        ((*records[:2], "--json", tmp_path), "is a folder: name a file"),
    ):
        assert said in vsehub("compare", *words, status=2)
