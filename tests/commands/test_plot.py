"""`vsehub plot`: runs by place or by name, a picture, and JSON."""

import json

import pytest


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run" / "baseline" / "checkpoint-5"
    folder.mkdir(parents=True)
    history = [{"loss": 3.0, "step": 5}, {"eval_rsum": 50.0, "step": 5}]
    (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    return tmp_path / "run"


def test_runs_are_drawn_and_told(run, vsehub, vsehub_json, tmp_path):
    out = tmp_path / "curves.svg"
    said = vsehub("plot", run, run / "baseline", "--out", out)
    assert said.splitlines() == ["run/baseline: 2 curves"] * 2 + [f"picture: {out}"] and out.exists()
    assert vsehub_json("plot", "--runs", run, "--out", out)["run/baseline"]["eval_rsum"] == [[5, 50.0]]


def test_what_cannot_be_drawn_is_one_line(run, vsehub, tmp_path):
    for words, said in (
        ((), "say which runs"),
        ((run, "--out", "curves.gif"), "end its name in .png, .svg, .pdf"),
        ((tmp_path / "none",), "no such folder"),
        ((run, "--metrics", "none"), "no evaluation of these runs has 'none'"),
    ):
        assert said in vsehub("plot", *words, status=2)
