"""The demos' last step: a Hub folder is searched, and explained, in a process that cannot import vsehub."""

import json

import pytest
from PIL import Image

from vsehub.demos.demo import in_a_clean_process

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
    (tmp_path / "scenes.json").write_text(json.dumps(scenes))
    return tmp_path


def test_a_folder_is_searched_without_vsehub(tiny_folder, gallery, capfd):
    in_a_clean_process("demo_search.py", tiny_folder, gallery, gallery / "search.png")
    said = capfd.readouterr()
    assert "loaded D2SVSEModel from transformers_modules, without vsehub" in said.err and said.out == ""
    assert said.err.count("of the first 5 are right; 2 of 6 pictures are") == 3
    assert Image.open(gallery / "search.png").size[0] > 6 * 176


def test_belief_is_drawn_without_vsehub(pir_folder, gallery, capfd):
    in_a_clean_process("demo_belief.py", pir_folder, gallery, gallery / "belief.png")
    said = capfd.readouterr().err
    assert "loaded PIRModel from transformers_modules, without vsehub" in said
    assert "they cover 25 % of the picture" in said and said.count("of 5 of its class") == 3
    assert Image.open(gallery / "belief.png").size[0] > 2 * 176
