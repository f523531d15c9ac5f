"""`vsehub index`: what was done in words and as JSON, arguments by name, quiet; its sub-verbs."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from vsehub.commands import index_calibrate, index_export


@pytest.fixture(scope="module")
def photos(tmp_path_factory, tiny_pictures):
    folder = tmp_path_factory.mktemp("photos")
    for number, picture in enumerate(tiny_pictures[:3]):
        picture.save(folder / f"{number}.png")
    (folder / "torn.png").write_bytes(b"torn")
    return folder


def test_what_was_done_is_told_in_words_and_numbers(vsehub, vsehub_json, photos, tiny_folder, tmp_path):
    out = tmp_path / "index"
    words = ("--data", photos, "--model", tiny_folder, "--out", out, "--batch-size", "2", "--workers", "1")
    assert f"{out}: 3 rows; 3 embedded, 0 unchanged, 0 removed; 1 bad" in vsehub("index", *words, "--device", "cpu")
    done = vsehub_json("index", photos, "--out", out, "--update")
    counts = {name: done[name] for name in ("rows", "embedded", "unchanged", "removed", "bad")}
    assert counts == {"rows": 3, "embedded": 0, "unchanged": 3, "removed": 0, "bad": 1}
    assert "--update brings it up to date" in vsehub("index", *words, status=2)


@pytest.mark.slow
def test_quiet_prints_the_result_alone(photos, tiny_folder, tmp_path):
    words = ["index", photos, "--model", tiny_folder, "--out", tmp_path / "index", "--quiet", "--json"]
    command = [sys.executable, "-m", "vsehub", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0 and done.stderr == ""
    assert json.loads(done.stdout)["embedded"] == 3


@pytest.mark.parametrize(("verb", "module"), [("export", index_export), ("calibrate", index_calibrate)])
def test_sub_verbs_get_the_rest(verb, module, vsehub, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "main", lambda rest: seen.append(rest) or 0)
    vsehub("index", verb, "photos.index", "--out", "x")
    assert seen == [["photos.index", "--out", "x"]]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--batch_size", "0"), "--batch_size: must be"),
        (("--workers", "-1"), "--workers: must be"),
        (("--bands", "0", "1", "2"), "--bands: must be"),
        (("--kind", "ivf"), "invalid choice: 'ivf'"),
        (("--device", "gpu"), "--device: must be auto, cpu, cuda"),
    ],
)
def test_what_is_out_of_range_is_one_line(flags, said, vsehub, photos, tmp_path):
    assert said in vsehub("index", photos, "--model", "m", "--out", tmp_path / "index", *flags, status=2)
    assert not (tmp_path / "index").exists()


def test_an_update_reads_a_source_as_before_unless_flags_say_otherwise(tiny_folder, tmp_path, vsehub, vsehub_json):
    pictures, out = tmp_path / "pictures", tmp_path / "tiled.index"
    pictures.mkdir()
    Image.effect_noise((128, 128), 80).convert("RGB").save(pictures / "scene.tif")
    Image.new("RGB", (32, 32), "blue").save(pictures / "photo.png")
    first = vsehub_json(
        "index", pictures, "--model", tiny_folder, "--out", out, "--tile", "64", "--overlap", "0", "--fast"
    )
    again = vsehub_json("index", pictures, "--out", out, "--update")
    assert first["rows"] == again["rows"] == again["unchanged"] == 5 and again["embedded"] == 0
    whole = vsehub_json("index", pictures, "--out", out, "--update", "--tile", "0")
    assert whole["rows"] == 2 and vsehub_json("index", pictures, "--out", out, "--update")["unchanged"] == 2


def test_the_width_is_kept_in_the_index_and_used_by_a_search(vsehub, vsehub_json, photos, tiny_folder, tmp_path):
    out = tmp_path / "narrow"
    vsehub("index", photos, "--model", tiny_folder, "--out", out, "--width", "5")
    assert len(vsehub_json("search", out, "a dog")["hits"]) == 3
    assert "3 unchanged" in vsehub("index", photos, "--out", out, "--update")
    said = vsehub("index", photos, "--out", out, "--update", "--width", "6", status=2)
    assert "holds the first 5 numbers of each embedding" in said
    words = ("index", photos, "--model", tiny_folder, "--out", tmp_path / "wide", "--width")
    assert "its embeddings have 16 numbers, fewer than --width 17" in vsehub(*words, "17", status=2)
    assert "--width: must be" in vsehub(*words, "0", status=2)
