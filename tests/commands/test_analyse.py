"""`vsehub analyse`: models by place or by name, a table, JSON and pictures."""

import sys

from vsehub.__main__ import main

NAME = "vsehub.evaluation.analyse.analysis"


def test_a_table_json_and_pictures(vsehub, vsehub_json, tiny_folder, pairs, tmp_path):
    said = vsehub("analyse", tiny_folder, "--data", pairs, "--plots", tmp_path / "drawn", "--json", tmp_path / "a.json")
    assert "effective rank, images" in said and "4 images, 8 captions" in said
    for name in ("analysis.png", "analysis.svg"):
        assert f"picture: {tmp_path / 'drawn' / name}" in said and (tmp_path / "drawn" / name).stat().st_size > 1000
    figures = next(iter(vsehub_json("analyse", "--model", tiny_folder, "--data", pairs, "--widths", "4").values()))
    assert f"{figures['modality_gap']:.3f}" in said and [row["width"] for row in figures["recall_by_width"]][0] == 4


def test_flags_reach_the_library(vsehub, calls, monkeypatch):
    monkeypatch.setattr("vsehub.evaluation.tables.analysis_table", lambda results: "told")
    made = calls(NAME, {})
    words = ("--split", "val", "--dense_text", "union", "--widths", "32", "64", "--batch_size", "3")
    assert vsehub("analyse", "org/a", "org/b", "--data", "d", *words) == "told\n"
    (models, data, split), options = made[0]
    assert (models, data.data, data.dense_text, split) == (["org/a", "org/b"], "d", "union", "val")
    assert options["need_dense"] and options["widths"] == (32, 64) and options["batch_size"] == 3
    assert options["loading"]["org/a"] == {"trust_remote_code": False}


def test_the_figures_are_told_though_no_picture_can_be_drawn(vsehub, tiny_folder, pairs, tmp_path, monkeypatch, capsys):
    def full(results, pictures):
        raise OSError(28, "no space left on device", str(pictures[0]))

    monkeypatch.setattr("vsehub.plots.analysis.draw_analysis", full)
    words = ("analyse", str(tiny_folder), "--data", str(pairs), "--plots", str(tmp_path), "--json", str(tmp_path / "a"))
    assert main([*words]) == 2
    said = capsys.readouterr()
    assert "effective rank, images" in said.out and "no space left" in said.err and (tmp_path / "a").stat().st_size


def test_models_after_other_flags_are_told_where_to_stand_and_all_of_them_count(vsehub, calls, monkeypatch):
    monkeypatch.setattr("vsehub.evaluation.tables.analysis_table", lambda results: "told")
    made = calls(NAME, {})
    said = vsehub("analyse", "--split", "val", "org/a", "--data", "d", status=2)
    assert "'org/a' stands behind other flags: put it before all of them, or write --model org/a" in said
    vsehub("analyse", "org/a", "--data", "d", "--model", "org/b")
    assert made[0][0][0] == ["org/a", "org/b"]


def test_bad_requests_are_one_line(vsehub, calls, tiny_folder, pairs, tmp_path, monkeypatch):
    assert "width 99: these embeddings have 16 numbers" in vsehub(
        "analyse", tiny_folder, "--data", pairs, "--widths", "99", status=2
    )
    made = calls(NAME, None)
    (tmp_path / "file").touch()
    for words, said in (
        (("--data", "d"), "say which models"),
        (("m",), "DATA is missing"),
        (("m", "--data", "d", "--widths", "0"), "--widths: must be"),
        (("m", "--data", "d", "--plots", tmp_path / "file"), "file is a file, not a folder"),
    ):
        assert said in vsehub("analyse", *words, status=2)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = ("--data", "d", "--plots", tmp_path / "drawn")
    assert "pip install vsehub[plot]" in vsehub("analyse", "org/m", *words, status=2) and made == []
