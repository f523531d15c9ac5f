"""What lies beside the weights: it names classes and methods that exist."""

import ast
import importlib
import json

import pytest

from vsehub.hub_cards import handler
from vsehub.hub_cards.companions import CUSTOM_PIPELINES, FEATURES, MODULES, PIPELINE, TASK, write_companions
from vsehub.hub_cards.shipped import is_listed


@pytest.fixture
def folder(tmp_path):
    write_companions(tmp_path)
    return tmp_path


def test_every_file_may_travel_to_the_hub(folder):
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert len(names) == 5 and all(is_listed(name) for name in names)


def test_the_handler_is_the_installed_one(folder):
    with open(handler.__file__, encoding="utf-8") as file:
        assert (folder / "handler.py").read_text(encoding="utf-8") == file.read()
    classes = [
        node.name for node in ast.parse((folder / "handler.py").read_text()).body if isinstance(node, ast.ClassDef)
    ]
    assert "EndpointHandler" in classes  # the name that an endpoint looks for


def test_the_pipeline_is_a_class_of_its_file():
    file, name = CUSTOM_PIPELINES[TASK]["impl"].split(".")
    assert PIPELINE.endswith(f".{file}") and hasattr(importlib.import_module(PIPELINE), name)


def test_sentence_transformers_calls_methods_that_a_model_has(folder, tiny_model, tiny_text_batch, tiny_image_batch):
    settings = json.loads((folder / "sentence_bert_config.json").read_text())
    for modality, batch in (("text", tiny_text_batch), ("image", tiny_image_batch)):
        method = settings["modality_config"][modality]["method"]
        assert getattr(tiny_model, method)(**batch)[FEATURES["method_output_name"]].shape == (6, 16)


def test_the_modules_of_sentence_transformers_exist(folder):
    pytest.importorskip("sentence_transformers")
    modules = json.loads((folder / "modules.json").read_text())
    assert modules == MODULES
    for module in modules:
        path, name = module["type"].rsplit(".", 1)
        assert hasattr(importlib.import_module(path), name)
        assert (folder / module["path"]).is_dir()


def test_writing_twice_changes_nothing(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_companions(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
