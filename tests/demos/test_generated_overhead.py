"""Generated overhead scenes, belief maps and `vsehub explain`."""

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from vsehub import PIRModel
from vsehub.__main__ import main
from vsehub.demos.generated_overhead import (
    CLASSES,
    generate,
    object_mask,
    scene_of,
    words,
    write_dataset,
    write_towers,
)
from vsehub.plots.belief_map import belief_grid, believed_boxes, overlay, sheet


def test_equal_seeds_give_equal_scenes_and_others_give_others():
    first, again, other = (generate(10, seed).with_format(None) for seed in (0, 0, 1))
    assert first["captions"] == again["captions"] != other["captions"]
    assert first[3]["image"] == again[3]["image"] != other[3]["image"]


def test_splits_are_read_by_datasets_and_every_caption_is_true_and_known(tmp_path):
    write_dataset(tmp_path, train=16, validation=8, test=8)
    rows = load_dataset(str(tmp_path), split="train")
    assert rows.features["label"].names == list(CLASSES) and rows[0]["image"].size == (64, 64)
    for index, row in enumerate(rows):
        scene, _ = scene_of(0, index)
        for caption in row["captions"]:
            said = caption.split()
            assert set(said) <= set(words())
            for fact, names in (
                ("ground", ("green", "brown", "grey", "sandy")),
                ("colour", ("white", "red", "blue", "yellow")),
            ):
                assert all(word == scene[fact] for word in said if word in names)


def test_the_mask_covers_the_objects_alone():
    for index in range(8):
        mask, (left, top, side) = object_mask(0, index, 8), scene_of(0, index)[0]["box"]
        assert 4 <= mask.sum() <= 36 and mask.shape == (8, 8)
        assert mask[int((top + side / 2) // 8), int((left + side / 2) // 8)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    """An untrained PIR model of the demo's towers, with its processor, and a picture."""
    from vsehub import PIRProcessor

    root = tmp_path_factory.mktemp("pir")
    torch.manual_seed(0)
    paths = write_towers(root / "towers")
    PIRModel.from_vision_text_pretrained(
        paths["vision"], paths["text"], paths["instruction"], projection_dim=16, attention_heads=2, image_size=64
    ).save_pretrained(root / "model")
    PIRProcessor.from_vision_text_pretrained(paths["vision"], paths["text"], 64).save_pretrained(root / "model")
    pixels = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "scene.png")
    return root


def test_belief_becomes_a_grid_over_the_image(folder):
    model = PIRModel.from_pretrained(folder / "model").eval()
    grid = belief_grid(model, torch.rand(2, 3, 64, 64))
    assert grid.shape == (2, 8, 8) and (grid.sum((1, 2)) <= 1 + 1e-5).all()
    assert belief_grid(model, torch.rand(1, 3, 32, 64)).shape == (1, 4, 8)
    assert torch.equal(grid.flatten(1), model.belief(torch.rand(2, 3, 64, 64))[:, 1:]) is False
    image = Image.open(folder / "scene.png")
    assert overlay(image, grid[0]).size == image.size
    assert sheet([(image, grid[0], [("a river", 0.5, True), ("a very long caption " * 9, 0.4, None)])]).size[1] > 170


def test_the_most_believed_cells_are_named_in_pixels():
    grid = torch.zeros(2, 4)
    grid[1, 3] = 0.9
    assert believed_boxes(grid, (80, 40), 1) == [((60, 20, 80, 40), pytest.approx(0.9))]


def test_explain_draws_and_ranks(folder, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("a river\n\na forest\n")
    words = ["explain", str(folder / "model"), str(folder / "scene.png"), "--text", "two planes"]
    assert main([*words, "--texts", str(tmp_path / "texts.txt"), "--out", str(tmp_path / "map.png")]) == 0
    said = capsys.readouterr().out
    assert said.count("at pixels") == 5 and all(text in said for text in ("a river", "a forest", "two planes"))
    assert Image.open(tmp_path / "map.png").size[0] > 300


def test_explain_refuses_what_it_cannot_explain(folder, tiny_folder, tmp_path, capsys):
    picture = str(folder / "scene.png")
    (tmp_path / "page.png").write_text("<html>")
    for arguments, said in (
        ([str(tiny_folder), picture], "has no belief"),
        ([str(folder / "model"), str(tmp_path / "page.png")], "page.png"),
        ([str(tmp_path), picture], "model"),
    ):
        assert main(["explain", *arguments]) == 2
        assert said in capsys.readouterr().err
