"""`vsehub plot`: runs by place or by name, a picture, and JSON."""

import json
import shutil

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
    assert said.splitlines() == ["run/baseline: 2 curves", f"picture: {out}"] and out.exists()
    assert vsehub_json("plot", "--runs", run, "--out", out)["run/baseline"]["eval_rsum"] == [[5, 50.0]]


def test_json_has_every_run_and_null_for_what_is_no_number(run, vsehub_json, tmp_path):
    again = tmp_path / "later" / "run"
    shutil.copytree(run, again)
    history = [{"loss": float("nan"), "step": 5}, {"loss": 2.0, "step": 10}]
    (again / "baseline/checkpoint-5/trainer_state.json").write_text(json.dumps({"log_history": history}))
    told = vsehub_json("plot", run, again, "--out", tmp_path / "curves.svg")
    assert told.keys() == {f"{tmp_path.name}/run/baseline", "later/run/baseline"}
    assert told["later/run/baseline"]["loss"] == [[5, None], [10, 2.0]]


def test_what_cannot_be_drawn_is_one_line(run, vsehub, tmp_path):
    for words, said in (
        ((), "say which runs"),
        ((run, "--out", "curves.gif"), "end its name in .png, .svg, .pdf"),
        ((tmp_path / "none",), "no such folder"),
        (("--out", "curves.png", "late"), "'late' stands behind other flags: put it before all of them"),
        ((run, "--metrics", "none"), "no evaluation of these runs has 'none'"),
    ):
        assert said in vsehub("plot", *words, status=2)
