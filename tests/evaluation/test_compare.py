"""Two records of the same queries: compared, and refused where the queries are others."""

import json
from pathlib import Path

import numpy as np
import pytest

from vsehub.evaluation.compare import compare_files, comparison_table
from vsehub.evaluation.ranking import image_text_outcomes
from vsehub.evaluation.record import evaluation_record, record_json
from vsehub.evaluation.significance import Comparison, compare_outcomes


def outcomes(seed):
    rng = np.random.default_rng(seed)
    return image_text_outcomes(rng.normal(size=(9, 4)), rng.normal(size=(18, 4)), np.repeat(np.arange(9), 2))


@pytest.fixture
def write(tmp_path):
    """A function: name, outcomes by protocol, facts -> the path of a record."""

    def to_file(name, found, **about):
        facts = {"data_fingerprint": "sha256:1", "split": "test", **about}
        path = tmp_path / f"{name}.json"
        path.write_text(record_json({"evaluation": evaluation_record(found, facts, samples=20)}))
        return str(path)

    return to_file


def test_files_compare_as_what_they_hold(write):
    a, b = outcomes(0), outcomes(1)
    found = compare_files(write("a", {"recall": a}), write("b", {"recall": b}), 50, 99, 0.9, seed=3)
    expected = compare_outcomes(a, b, 50, 99, 0.9, 3)
    assert list(found) == ["recall"]
    for name, row in found["recall"].items():
        assert tuple(row) == pytest.approx(tuple(expected[name]))
    assert found["recall"]["rsum"].difference == pytest.approx(b.metrics()["rsum"] - a.metrics()["rsum"])


@pytest.mark.parametrize("other", [0, 1])
def test_the_order_of_the_metrics_in_a_file_changes_nothing(write, other):
    a, b = write("a", {"recall": outcomes(0)}), write("b", {"recall": outcomes(other)})
    expected = compare_files(a, b, 50, 99)["recall"]
    content = json.loads(Path(b).read_text())
    packed = content["evaluation"]["protocols"]["recall"]["outcomes"]
    for part in ("values", "sums"):
        packed[part] = dict(reversed(packed[part].items()))
    Path(b).write_text(json.dumps(content))
    found = compare_files(a, b, 50, 99)["recall"]
    assert list(found) == list(expected)
    for name, row in found.items():
        assert tuple(row) == pytest.approx(tuple(expected[name]))
        assert row.difference == pytest.approx(row.b - row.a)


@pytest.mark.parametrize(
    ("about", "expected"), [({"data_fingerprint": "sha256:2"}, "differ in data"), ({"split": "val"}, "differ in split")]
)
def test_other_queries_cannot_be_paired(write, about, expected):
    with pytest.raises(ValueError, match=f"cannot be compared: they {expected}.*Evaluate both models on the same"):
        compare_files(write("a", {"recall": outcomes(0)}), write("b", {"recall": outcomes(1)}, **about))


def test_other_protocols_cannot_be_paired(write):
    both = write("both", {"recall": outcomes(0), "coco-5k": outcomes(0)})
    with pytest.raises(ValueError, match="protocols recall and recall, coco-5k. Evaluate both models by the same"):
        compare_files(write("one", {"recall": outcomes(0)}), both)


def test_other_metrics_cannot_be_paired_and_the_files_are_named(write):
    a, b = write("a", {"recall": outcomes(0)}), write("b", {"recall": outcomes(1)})
    content = json.loads(Path(b).read_text())
    content["evaluation"]["protocols"]["recall"]["outcomes"]["sums"] = {}
    Path(b).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="a.json and .*b.json cannot be compared: .*different metrics.*Evaluate both"):
        compare_files(a, b, 50, 99)


def test_the_table_has_a_line_for_each_metric():
    row = Comparison(a=10.0, b=12.5, difference=2.5, low=-1.0, high=6.0, p=0.1234)
    head, line = comparison_table({"rsum": row}, level=0.9).splitlines()
    assert "90 % interval" in head
    assert line.split() == ["rsum", "10.00", "12.50", "+2.50", "[-1.00,", "+6.00]", "0.1234"]
