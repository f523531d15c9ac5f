"""The demos' last step: a Hub folder is searched, and explained, in a process that cannot import vsehub."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from vsehub.demos import demo
from vsehub.demos.demo import in_a_clean_process
from vsehub.plots import belief_map

CAPTIONS = ["a red ball and a dog", "a boat and a bridge", "a black cat and a tree"]


@pytest.fixture
def gallery(tmp_path, tiny_pictures):
    scenes = []
    for number, picture in enumerate(tiny_pictures):
        picture.save(tmp_path / f"{number}.png")
        caption = CAPTIONS[number % len(CAPTIONS)]
        mask = [[int(row == column) for column in range(4)] for row in range(4)]
        facts = {"captions": [caption, f"there is {caption}"], "dense_text": caption, "label": caption, "objects": mask}
        scenes.append({"file": f"{number}.png", **facts})
        scenes[-1]["true"] = [CAPTIONS[0], caption]
    (tmp_path / "scenes.json").write_text(json.dumps(scenes))
    (tmp_path / "off_topic.json").write_text(json.dumps(["a violin", "a zebra"]))
    (tmp_path / "queries.json").write_text(json.dumps([*CAPTIONS, "a blue whale"]))
    return tmp_path


def test_a_folder_is_searched_without_vsehub(tiny_folder, gallery, capfd):
    in_a_clean_process("demo_search.py", tiny_folder, gallery, gallery / "search.png")
    said = capfd.readouterr()
    assert "loaded D2SVSEModel from transformers_modules, without vsehub" in said.err and said.out == ""
    assert said.err.count("of the first 5 are right; 2 pictures are") == 3
    counts = json.loads((gallery / "search.json").read_text())
    assert [entry["query"] for entry in counts] == [*CAPTIONS, "a blue whale"]
    assert [entry["there"] for entry in counts] == [2, 2, 2, 0] and counts[3]["right"] == 0
    assert all(1 <= entry["right"] <= 2 for entry in counts[:3])  # 5 of 6 pictures are shown, 2 are right
    nothing = json.loads((gallery / "nothing.json").read_text())
    assert nothing == {"asked": 2, "nothing": 0}  # the model has no cut-off
    assert Image.open(gallery / "search.png").size[0] > 6 * 176


def test_belief_is_drawn_without_vsehub(pir_folder, gallery, capfd):
    in_a_clean_process("demo_belief.py", pir_folder, gallery, gallery / "belief.png", heard=False)
    assert capfd.readouterr() == ("", "")
    figures = json.loads((gallery / "belief.json").read_text())
    assert list(figures) == CAPTIONS
    for of_class in figures.values():
        assert of_class["area"] == 25 and of_class["maps"] == 2 and of_class["peak"] in (0, 50, 100)
    assert Image.open(gallery / "belief.png").size[0] > 2 * 176


def test_where_the_belief_lies(monkeypatch):
    monkeypatch.syspath_prepend(Path(demo.__file__).parent)  # as for the script
    monkeypatch.syspath_prepend(Path(belief_map.__file__).parent)
    belief_figures = importlib.import_module("demo_belief").belief_figures
    grids = torch.tensor([[[0.5, 0.1], [0.1, 0.3]], [[0.1, 0.2], [0.3, 0.4]], [[0.4, 0.3], [0.2, 0.1]]])
    scenes = [
        {"label": "a", "objects": [[True, False], [False, False]]},
        {"label": "a", "objects": [[True, True], [False, False]]},
        {"label": "b", "objects": [[True, True], [True, True]]},
    ]
    first, second = (belief_figures(grids, scenes)[label] for label in "ab")
    assert first == pytest.approx({"peak": 50, "belief": 40, "area": 37.5, "maps": 2})
    assert second == pytest.approx({"peak": 100, "belief": 100, "area": 100, "maps": 1})
