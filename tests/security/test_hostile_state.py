"""Recipes, caches, records and columns that somebody crafted: harmless, or one line that names the file."""

import json
import os

import numpy as np
import pytest
import torch
from datasets import Dataset
from hostile import NPY
from safetensors.torch import save_file

from vsehub.__main__ import main
from vsehub.data.captioning.journal import Journal, read_table
from vsehub.data.captioning.request import CaptionError
from vsehub.evaluation.record import FORMAT
from vsehub.evaluation.saved_embeddings import read_embeddings
from vsehub.training.flags.recipe import read_recipe
from vsehub.training.inputs.teacher_columns import read_teachers
from vsehub.training.inputs.tower_cache import TowerCache
from vsehub.training.stages import _finished

DEEP = "[" * 100_000


def one_line(capsys, *words) -> str:
    """Run a verb that must end in one line; that line."""
    capsys.readouterr()
    assert main(list(map(str, words))) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert len(said) == 1, said
    return said[0]


# --- recipes -----------------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
RECIPES = {
    "apply": "data: !!python/object/apply:os.system ['touch {}']",
    "new": "data: !!python/object/new:os.system ['touch {}']",
    "apply with state": "data: !!python/object/apply:subprocess.Popen [['touch', '{}']]",
    "name": "data: !!python/name:os.system",
    "module": "data: !!python/module:os",
    "object": "data: !!python/object:vsehub.search.retriever.Retriever {{}}",
    "tuple": "data: !!python/tuple [a, b]",
    "own tag": "data: !touch '{}'",
    "top": "!!python/object/apply:os.system ['touch {}']",
    "in a stage": "pretrain:\n  max_steps: !!python/object/apply:os.system ['touch {}']",
    "bomb": BOMB.replace("{", "{{").replace("}", "}}"),
    "endless": "a: &a [*a]",
    "endless mapping": "a: &a {{b: *a}}",
    "deep": "a: " + DEEP,
    "list": "- a",
    "NUL": "a: \0",
    "latin": "a: \xff",
    "keys": "1: a",
    "date key": "2026-01-01: a",
    "bad date": "data: 2026-99-99",
}


@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_runs_nothing_and_stays_small(kind, tmp_path, capsys):
    text = RECIPES[kind].format(tmp_path / "witness")
    (tmp_path / "r.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="r.yaml: "):
        read_recipe(str(tmp_path / "r.yaml"))
    assert "r.yaml" in one_line(capsys, "train", tmp_path / "r.yaml")
    assert not (tmp_path / "witness").exists()


# --- records of evaluations --------------------------------------------------------------------------------------

PART = {"outcomes": {"images": {"image_to_text": [0]}, "values": {"image_to_text_recall@1": [1]}, "sums": {}}}
RECORDS = {
    "deep": DEEP,
    "a tag": "!!python/object/apply:os.system ['touch x']",
    "list": "[]",
    "no evaluation": "{}",
    "protocols": json.dumps({"evaluation": {"format": FORMAT, "protocols": []}}),
    "a number": json.dumps({"evaluation": {"format": FORMAT, "protocols": {"a": 3}}}),
    "texts": json.dumps({"evaluation": {"format": FORMAT, "protocols": {"a": {"outcomes": {"values": "x"}}}}}),
    "huge": json.dumps({"evaluation": {"format": FORMAT, "protocols": {"a": PART}}}).replace("[0]", f"[{10**30}]"),
    "infinite": json.dumps({"evaluation": {"format": FORMAT, "protocols": {"a": PART}}}).replace("[1]", "[1e999]"),
    "not UTF-8": "\xff",
    "empty": "",
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_is_one_line(kind, tmp_path, capsys):
    for name in "ab":
        (tmp_path / f"{name}.json").write_text(RECORDS[kind], encoding="latin-1")
    one_line(capsys, "compare", tmp_path / "a.json", tmp_path / "b.json")


# --- caches and finished stages ----------------------------------------------------------------------------------


def cache(folder, starts=(0, 2, 3), width=4, rows=3):
    """A cache of two items."""
    folder.mkdir(exist_ok=True)
    np.save(folder / "starts.npy", np.array(starts))
    (folder / "cache.json").write_text(json.dumps({"width": width}))
    (folder / "states.f16").write_bytes(np.zeros((rows, 4), np.float16).tobytes())
    return folder


def test_a_cache_is_read(tmp_path):
    assert TowerCache(cache(tmp_path / "c"))[0].shape == (2, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"starts": ()}, {"starts": (1, 3)}, {"starts": (0, 3, 2, 3)}, {"starts": (0, 10**12)}, {"starts": (0, -3)},
        {"starts": (0.0, 3.0)}, {"starts": ((0, 3),)}, {"starts": (0, 2, 4)}, {"width": 0}, {"width": -4},
        {"width": "x"}, {"width": None}, {"width": 10**12}, {"width": [4]}, {"rows": 2}, {"rows": 0},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_cache_is_one_line(change, tmp_path):
    with pytest.raises(ValueError, match="remove it, and it is made again"):
        TowerCache(cache(tmp_path / "c", **change))


@pytest.mark.parametrize("kind", NPY)
def test_starts_are_numbers(kind, tmp_path):
    (cache(tmp_path / "c") / "starts.npy").write_bytes(NPY[kind](tmp_path / "witness"))
    with pytest.raises(ValueError, match="remove it, and it is made again"):
        TowerCache(tmp_path / "c")
    assert not (tmp_path / "witness").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"a": "x"}', '{"a": {"b": 1}}', DEEP, "\xff"])
def test_a_finished_stage_has_numbers(text, tmp_path):
    (tmp_path / "finished.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="finished.json: not the metrics of a stage"):
        _finished(tmp_path / "finished.json")


# --- embeddings and teachers -------------------------------------------------------------------------------------

GOOD = {"image_embeds": torch.eye(2), "text_embeds": torch.eye(2), "text_to_image": torch.tensor([0, 1])}
EMBEDDINGS = {
    "no owners": {"text_to_image": None},
    "an owner outside": {"text_to_image": torch.tensor([0, 2])},
    "a negative owner": {"text_to_image": torch.tensor([0, -1])},
    "owners of floats": {"text_to_image": torch.tensor([0.0, 1.0])},
    "fewer owners": {"text_to_image": torch.tensor([0])},
    "another dimension": {"text_embeds": torch.ones(2, 3)},
    "a vector": {"image_embeds": torch.ones(2)},
    "NaN": {"image_embeds": torch.full((2, 2), float("nan"))},
    "whole numbers": {"text_embeds": torch.ones(2, 2, dtype=torch.int64)},
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_saved_embeddings_are_embeddings(kind, tmp_path):
    tensors = {name: value for name, value in (GOOD | EMBEDDINGS[kind]).items() if value is not None}
    save_file(tensors, tmp_path / "e.safetensors", metadata={"model": "m"})
    with pytest.raises(ValueError, match="e.safetensors: not a file of embeddings"):
        read_embeddings(tmp_path / "e.safetensors", {"model": "m"})


def test_whole_embeddings_are_read(tmp_path):
    save_file(GOOD, tmp_path / "e.safetensors", metadata={"model": "m"})
    assert len(read_embeddings(tmp_path / "e.safetensors", {"model": "m"})) == 3


TEACHERS = {
    "views": {"teacher_views": "{"},
    "deep views": {"teacher_views": DEEP},
    "views of a list": {"teacher_views": "[1]"},
    "unknown views": {"teacher_views": '{"count": 1, "augmentation": "__class__"}'},
    "more views": {"teacher_views": '{"count": 1000000000, "augmentation": "crop"}'},
    "another count": {"teacher_views": '{"count": 2, "augmentation": "crop"}'},
    "a field": {"teacher_views": '{"count": 1, "open": "x"}'},
    "texts": {"teacher_image_embeds": [["a", "b"]]},
    "ragged": {"teacher_image_embeds": [[1.0], [1.0, 2.0]]},
    "flat": {"teacher_image_embeds": [1.0, 2.0]},
    "infinite": {"teacher_image_embeds": [[1e30, 2.0]]},
    "text of texts": {"teacher_text_embeds": [["a"]]},
    "flat text": {"teacher_text_embeds": [1.0]},
}


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.filterwarnings("ignore:overflow")
def test_columns_of_teachers_are_features(kind):
    row = {"image_id": "a", "teacher_image_embeds": [[1.0, 2.0]], "teacher_text_embeds": [[1.0]]}
    row |= {"teacher_views": '{"count": 1, "augmentation": "crop"}'}
    assert read_teachers(Dataset.from_list([row])).image.shape == (1, 1, 2)
    with pytest.raises(ValueError, match="run `vsehub teachers` again"):
        read_teachers(Dataset.from_list([row | TEACHERS[kind]]))


# --- captioning jobs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("captions", [3, [3], [[]], [["a"]], [[["a"], "b", True, 1, ""]], {"a": 1}, "text"])
def test_a_journal_is_one_line(captions, tmp_path):
    lines = [{"prompt": "p"}, {"captions": captions, "problems": {}}, {"captions": [], "problems": {}}]
    (tmp_path / "j").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(CaptionError, match="line 2 is damaged"):
        Journal(tmp_path / "j", {"prompt": "p"}).read()


@pytest.mark.parametrize("header, problems", [([], {}), ("x", {}), ({}, [1]), ({}, "x"), (None, None)])
def test_a_table_of_captions_is_one_line(header, problems, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    facts = {b"vsehub.captions": json.dumps({"header": header, "problems": problems}).encode()}
    pq.write_table(pa.table({"image_id": ["a"]}).replace_schema_metadata(facts), tmp_path / "t.parquet")
    with pytest.raises(CaptionError, match="no table of dense captions"):
        read_table(str(tmp_path / "t.parquet"), {"prompt": "p"})
    assert os.path.exists(tmp_path / "t.parquet")
