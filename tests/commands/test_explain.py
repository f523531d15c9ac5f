"""`vsehub explain`: a picture, boxes and texts; JSON; what cannot be explained."""

import json

import pytest
from PIL import Image

from vsehub.__main__ import main


@pytest.fixture
def picture(tmp_path, tiny_pictures):
    tiny_pictures[1].save(tmp_path / "scene.png")
    return str(tmp_path / "scene.png")


def test_it_draws_and_ranks(pir_folder, picture, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("a river\n\na forest\n")
    words = ["explain", str(pir_folder), picture, "--text", "two boats", "--texts", str(tmp_path / "texts.txt")]
    out = ["--out", str(tmp_path / "new" / "map.png")]
    assert main([*words, *out]) == 0
    said = capsys.readouterr().out
    assert said.count("at pixels") == 5 and all(text in said for text in ("a river", "a forest", "two boats"))
    assert Image.open(tmp_path / "new" / "map.png").size[0] > 300
    assert main([*words, *out, "--k", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert len(printed["texts"]) == 2 and len(printed["boxes"]) == 5 and printed["picture"] == out[1]
    assert main([*words, *out, "--top", "1", "--json", str(tmp_path / "made.json")]) == 0
    assert "picture: " in capsys.readouterr().out
    assert len(json.loads((tmp_path / "made.json").read_text())["texts"]) == 1


def test_what_cannot_be_explained_is_one_line(pir_folder, tiny_folder, dual_folder, picture, tmp_path, capsys):
    (tmp_path / "page.png").write_text("<html>")
    (tmp_path / "latin.txt").write_bytes("café".encode("latin-1"))
    for arguments, said in (
        ([str(tiny_folder), picture], "has no belief"),
        ([dual_folder("clip"), picture], "has no belief: only PIR models"),
        ([str(pir_folder), str(tmp_path / "page.png")], "page.png"),
        ([str(tmp_path), picture], "model"),
        ([str(pir_folder), picture, "--out", str(tmp_path)], "is a folder: name a file"),
        ([str(pir_folder), picture, "--texts", str(tmp_path / "latin.txt")], "latin.txt: not a text file in UTF-8"),
        ([str(pir_folder), picture, "--top", "0"], "at least 1"),
    ):
        assert main(["explain", *arguments]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]
