"""The record of an evaluation: written, read, and refused where it is none."""

import json

import numpy as np
import pytest
import torch

from vsehub.evaluation.ranking import image_text_outcomes
from vsehub.evaluation.record import evaluation_record, read_record, record_json
from vsehub.evaluation.significance import intervals


@pytest.fixture
def outcomes():
    rng = np.random.default_rng(0)
    return image_text_outcomes(rng.normal(size=(8, 4)), rng.normal(size=(16, 4)), np.repeat(np.arange(8), 2))


@pytest.fixture
def file(tmp_path, outcomes):
    """A function: change(record) -> the path of a file that holds the changed record."""

    def write(change=lambda record: None):
        record = json.loads(json.dumps(evaluation_record({"recall": outcomes}, {"model": "a"}, samples=50)))
        change(record)
        path = tmp_path / "found.json"
        path.write_text(record_json({"rsum": 1.0, "evaluation": record}))
        return path

    return write


def test_what_is_read_gives_the_metrics_and_intervals_that_were_written(file, outcomes):
    record, found = read_record(file())
    expected = {name: value for name, value in outcomes.metrics().items() if "median" not in name}
    assert found["recall"].metrics() == pytest.approx(expected)
    versions = record["versions"]
    assert record["model"] == "a" and versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    part = record["protocols"]["recall"]
    assert part["metrics"] == pytest.approx(outcomes.metrics())
    assert {name: tuple(pair) for name, pair in part["intervals"].items()} == intervals(outcomes, 50)
    assert record["intervals"] == {"of": "images", "samples": 50, "level": 0.95, "seed": 0}


def test_a_record_is_json_with_a_line_for_each_metric():
    text = record_json({"rsum": 1.5, "evaluation": {"a": [1, 2]}})
    assert json.loads(text) == {"rsum": 1.5, "evaluation": {"a": [1, 2]}}
    assert len(text.splitlines()) == 4


def shorten(record):
    record["protocols"]["recall"]["outcomes"]["values"]["image_to_text_recall@1"].pop()


def of_the_outcomes(**changes):
    """A function that replaces parts of the outcomes of a record."""

    def change(record):
        for name, content in changes.items():
            record["protocols"]["recall"]["outcomes"][name] |= content

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_the_outcomes(values={"foo": [1.0]}), "'foo' is an outcome of neither image_to_text nor text_to_image"),
        (of_the_outcomes(values={"image_to_text_recall@1": [[1.0]] * 8}), "'image_to_text_recall@1' is not one list"),
        (of_the_outcomes(values={"image_to_text_recall@1": 3.0}), "'image_to_text_recall@1' is not one list"),
        (of_the_outcomes(images={"image_to_text": [[0]] * 8}), "'image_to_text' is not one list of numbers"),
        (of_the_outcomes(sums={"mean_recall": []}), r"the parts of 'mean_recall' are \[\], not names of its outcomes"),
        (
            of_the_outcomes(sums={"rsum": "image_to_text_recall@1"}),
            "the parts of 'rsum' are 'image_to_text_recall@1', not names",
        ),
    ],
)
def test_a_damaged_record_is_one_error_that_names_the_place(file, change, said):
    path = file(change)
    with pytest.raises(ValueError, match=f"{path}: not the json of an evaluation .*{said}"):
        read_record(path)


def test_a_folder_is_told_from_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="is a folder: name the json"):
        read_record(tmp_path)


def spoil(record):
    record["protocols"]["recall"]["outcomes"]["values"]["image_to_text_recall@1"][0] = float("nan")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda record: record.update(format=2), "its format is 2, this version reads 1"),
        (lambda record: record.pop("format"), "'format'"),
        (lambda record: record["protocols"].clear(), "it has no protocol"),
        (lambda record: record["protocols"]["recall"]["outcomes"].update(sums=None), "not the json of an evaluation"),
        (lambda record: record["protocols"]["recall"]["outcomes"]["sums"].update(rsum=["x"]), "'x'"),
        (shorten, "some outcomes are missing"),
        (spoil, "some outcomes are not finite"),
    ],
)
def test_what_is_no_record_is_told_with_the_remedy(file, change, expected):
    with pytest.raises(ValueError, match=r"found.json: not the json of an evaluation .*vsehub evaluate") as error:
        read_record(file(change))
    assert expected in str(error.value)


def test_other_files_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json: no such file"):
        read_record(tmp_path / "none.json")
    for content in ("", "[]", '{"rsum": 1}', "{"):
        (tmp_path / "wrong.json").write_text(content)
        with pytest.raises(ValueError, match="not the json of an evaluation"):
            read_record(tmp_path / "wrong.json")
