"""Evaluating by protocol from saved embeddings, and comparing two models, on tiny models and painted pictures."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from safetensors.torch import load_file

from vsehub.__main__ import main as vsehub
from vsehub.evaluation.protocols import PROTOCOLS, Protocol
from vsehub.evaluation.ranking import image_text_metrics

IMAGES = 12


def painted(seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_data(path, words, ids=range(IMAGES)):
    captions = [[f"a {words[i % len(words)]} {words[(i * 3 + 1) % len(words)]}", f"two {words[i // 2]}"] for i in ids]
    rows = {"image": [painted(i) for i in ids], "captions": captions, "image_id": [str(100 + i) for i in ids]}
    Dataset.from_dict(rows).to_parquet(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_tiny_model, tiny_processor):
    """A folder with two models, `a` and `b`, data, other data, and the protocol `tiny`."""
    root = tmp_path_factory.mktemp("evaluate")
    for name, seed in (("a", 0), ("b", 1)):
        make_tiny_model(seed).save_pretrained(root / name)
        tiny_processor.save_pretrained(root / name)
    words = ["dog", "cat", "river", "boat", "tree", "ball", "woman", "man"]
    write_data(root / "data.parquet", words)
    write_data(root / "other.parquet", words[::-1])
    return root


@pytest.fixture(autouse=True)
def small(monkeypatch, place):
    monkeypatch.chdir(place)
    monkeypatch.delenv("VSEHUB_TRACEBACK", raising=False)
    monkeypatch.setitem(PROTOCOLS, "coco-1k", Protocol("tiny", IMAGES, 2, folds=3))


def evaluate(model, *flags, data="data.parquet"):
    return vsehub(["evaluate", f"./{model}", "--data", f"./{data}", *map(str, flags)])


def test_embeddings_are_computed_once_and_serve_every_protocol(place, capsys, monkeypatch):
    assert evaluate("a", "--save_embeddings", "a.safetensors", "--json", "plain.json") == 0
    monkeypatch.setattr("vsehub.evaluation.evaluate._embeds", None)  # nothing is embedded again
    flags = ("--embeddings", "a.safetensors", "--protocol", "recall,coco-1k", "--json", "both.json")
    assert evaluate("a", *flags) == 0
    printed = capsys.readouterr().out
    assert "coco-1k: tiny" in printed and "95 % bootstrap intervals over images" in printed
    plain, both = (json.loads((place / name).read_text()) for name in ("plain.json", "both.json"))
    saved = load_file(place / "a.safetensors")
    expected = image_text_metrics(saved["image_embeds"], saved["text_embeds"], saved["text_to_image"])
    assert {key: plain[key] for key in expected} == pytest.approx(expected)
    assert plain["evaluation"]["protocols"]["recall"] == both["evaluation"]["protocols"]["recall"]
    record = both["evaluation"]
    assert record["dtype"] == "float32" and record["split"] == "test" and record["images"] == IMAGES
    versions = record["versions"]
    assert record["revision"].startswith("sha256:")
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    part = record["protocols"]["coco-1k"]
    assert len(part["outcomes"]["values"]["text_to_image_recall@1"]) == 2 * IMAGES
    low, high = part["intervals"]["rsum"]
    assert low <= part["metrics"]["rsum"] <= high


def test_folds_count_ties_in_expectation(place):
    images = [painted(0)] * 6  # all images alike, and so are all scores
    rows = {"image": images, "captions": [["a dog"], ["a cat"]] * 3, "image_id": list("abcdef")}
    Dataset.from_dict(rows).to_parquet(place / "alike.parquet")
    assert evaluate("a", "--folds", "2", "--json", "alike.json", data="alike.parquet") == 0
    found = json.loads((place / "alike.json").read_text())
    assert found["2_fold_text_to_image_recall@1"] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("model", "data", "flags", "expected"),
    [
        ("b", "data.parquet", (), "model is a, not b; revision is sha256:"),
        ("a", "other.parquet", (), "data is "),
        ("a", "data.parquet", ("--dtype", "bfloat16"), "dtype is float32, not bfloat16"),
    ],
)
def test_embeddings_of_something_else_are_refused(model, data, flags, expected, capsys):
    assert evaluate("a", "--save_embeddings", "mine.safetensors") == 0
    capsys.readouterr()
    assert evaluate(model, "--embeddings", "mine.safetensors", *flags, data=data) == 2
    assert expected in capsys.readouterr().err


def test_bad_requests_end_in_one_line(place, capsys):
    (place / "torn.safetensors").write_bytes(b"torn")
    for flags, expected in (
        (("--protocol", "coco"), "no protocol 'coco'"),
        (("--protocol", "rsitmd"), "rsitmd needs 452 images, these are 12"),
        (("--protocol", "cxc", "--ground_truth", "nowhere"), "no ground truth there"),
        (("--embeddings", "none.safetensors"), "no such file; write it with --save_embeddings"),
        (("--embeddings", "torn.safetensors"), "not a file of embeddings"),
        (("--embeddings", "x", "--save_embeddings", "y"), "give one of them"),
        (("--folds", "-1"), "--folds: must be a whole number of at least 0"),
        (("--folds", "5"), "12 images cannot be divided into 5 equal folds"),
        (("--batch_size", "0"), "--batch_size: must be a whole number of at least 1"),
        (("--graded", "classes"), "no scene classes for --graded classes"),
        (("--json", "a"), "a is a folder: name a file"),
        (("--save_embeddings", "data.parquet/x"), "data.parquet is a file"),
        (("--image_column", "picture"), "has no column 'picture'"),
    ):
        assert evaluate("a", *flags) == 2
        assert expected in capsys.readouterr().err


def test_a_missing_extra_is_told_before_anything_is_read(place, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidfuzz.distance", None)
    monkeypatch.setattr("vsehub.evaluation.evaluate.prepare_rows", None)  # a call would be another error
    assert evaluate("a", "--graded", "captions") == 2
    assert 'pip install "vsehub[graded]"' in capsys.readouterr().err


def test_other_column_names_are_told(place, capsys):
    names = {"image": "picture", "captions": "texts", "image_id": "key"}
    Dataset.from_parquet(str(place / "data.parquet")).rename_columns(names).to_parquet(str(place / "named.parquet"))
    flags = [word for name, other in names.items() for word in (f"--{name.replace('image_id', 'id')}_column", other)]
    flags[0] = "--image_column"
    assert evaluate("a", *flags, data="named.parquet") == 0


def test_bfloat16_is_near_and_recorded(place):
    assert evaluate("a", "--save_embeddings", "f.safetensors") == 0
    assert evaluate("a", "--dtype", "bfloat16", "--save_embeddings", "h.safetensors", "--json", "h.json") == 0
    full, half = (load_file(place / name) for name in ("f.safetensors", "h.safetensors"))
    assert half["image_embeds"].dtype == torch.float32
    assert (full["image_embeds"] * half["image_embeds"]).sum(1).min() > 0.99
    assert json.loads((place / "h.json").read_text())["evaluation"]["dtype"] == "bfloat16"


def test_two_models_are_compared_and_other_data_refused(place, capsys):
    for model, data, name in (("a", "data", "a"), ("b", "data", "b"), ("a", "other", "other")):
        assert evaluate(model, "--json", f"{name}.json", data=f"{data}.parquet") == 0
    assert evaluate("a", "--protocol", "coco-1k", "--json", "folds.json") == 0
    capsys.readouterr()
    assert vsehub(["compare", "a.json", "b.json", "--json", "gap.json", "--permutations", "200"]) == 0
    assert "mean_recall" in capsys.readouterr().out
    gap, a, b = (json.loads((place / f"{name}.json").read_text()) for name in ("gap", "a", "b"))
    row = gap["recall"]["rsum"]
    assert row["difference"] == pytest.approx(b["rsum"] - a["rsum"]) and 0 < row["p"] <= 1
    assert vsehub(["compare", "a.json", "a.json"]) == 0
    for other, expected in (("other.json", "differ in data"), ("folds.json", "protocols recall and coco-1k")):
        assert vsehub(["compare", "a.json", other]) == 2
        assert expected in capsys.readouterr().err
    (place / "wrong.json").write_text('{"rsum": 1}')
    for name, change in (
        ("nan", {"values": {"image_to_text_recall@1": [float("nan")] * 12}}),
        ("sums", {"sums": None}),
    ):
        record = json.loads((place / "a.json").read_text())
        outcomes = record["evaluation"]["protocols"]["recall"]["outcomes"]
        outcomes |= {key: {**outcomes[key], **value} if value else value for key, value in change.items()}
        (place / f"{name}.json").write_text(json.dumps(record))
        assert vsehub(["compare", "a.json", f"{name}.json"]) == 2
        assert "not the json of an evaluation" in capsys.readouterr().err
    assert vsehub(["compare", "a.json", "b.json", "--json", "b"]) == 2
    assert "is a folder" in capsys.readouterr().err
    for other, expected in (("wrong.json", "not the json of an evaluation"), ("none.json", "no such file")):
        assert vsehub(["compare", "a.json", other]) == 2
        assert expected in capsys.readouterr().err
