"""Curves of training runs: what is read of a checkpoint, and what is drawn."""

import json
import shutil

import pytest
from PIL import Image

from vsehub.plots.curves import Curves, draw_curves, read_curves

HISTORY = [
    {"loss": 3.0, "loss_align": 2.0, "grad_norm": 1.0, "learning_rate": 1e-4, "epoch": 0.5, "step": 5},
    {"eval_rsum": 50.0, "eval_i2t_recall@1": 3.0, "eval_name": "text", "epoch": 0.5, "step": 5},
    {"loss": 2.0, "loss_align": 1.5, "learning_rate": 5e-5, "epoch": 1.0, "step": 10},
    {"eval_rsum": 80.0, "eval_i2t_recall@1": 6.0, "epoch": 1.0, "step": 10},
]


@pytest.fixture
def run(tmp_path):
    """A run of two stages; of the first there is an older checkpoint, too."""
    for stage, step, history in (("pretrain", 5, HISTORY[:2]), ("pretrain", 10, HISTORY), ("finetune", 10, HISTORY)):
        folder = tmp_path / "run" / stage / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(json.dumps({"log_history": history}))
    (tmp_path / "run" / "hub").mkdir()
    return tmp_path / "run"


def test_the_newest_checkpoint_of_every_stage_is_read(run):
    finetune, pretrain = read_curves([run])
    assert (finetune.name, pretrain.name) == ("run/finetune", "run/pretrain")
    assert pretrain.series["eval_rsum"] == [(5, 50.0), (10, 80.0)] and "eval_name" not in pretrain.series
    assert pretrain.series["learning_rate"] == [(5, 1e-4), (10, 5e-5)] and "epoch" not in pretrain.series


def test_a_finished_stage_is_read_to_its_last_step_though_its_last_checkpoint_is_gone(run):
    (run / "pretrain" / "history.json").write_text(json.dumps({"log_history": HISTORY}))
    shutil.rmtree(run / "pretrain" / "checkpoint-10")
    for named in (run, run / "pretrain"):
        pretrain = read_curves([named])[-1]
        assert pretrain.name == "run/pretrain" and pretrain.series["eval_rsum"] == [(5, 50.0), (10, 80.0)]
    both = read_curves([run / "pretrain", run / "pretrain" / "checkpoint-5"])
    assert [each.name for each in both] == ["run/pretrain", "run/pretrain/checkpoint-5"]


def test_checkpoints_of_an_older_run_in_the_same_folder_are_not_read(run):
    for folder, name in ((run / "pretrain", "new"), (run / "pretrain/checkpoint-5", "new"), (run / "finetune", "new")):
        (folder / "settings.json").write_text(json.dumps({"run": name, "after": "", "settings": {}}))
    (pretrain,) = read_curves([run])
    assert pretrain.name == "run/pretrain" and pretrain.series["eval_rsum"] == [(5, 50.0)]


def test_a_stage_and_a_checkpoint_are_read_alone(run):
    assert [each.name for each in read_curves([run / "pretrain"])] == ["run/pretrain"]
    assert read_curves([run / "pretrain" / "checkpoint-5"])[0].series["eval_rsum"] == [(5, 50.0)]


def test_curves_of_several_runs_have_names_of_their_own(run, tmp_path):
    shutil.copytree(run, tmp_path / "other" / "run")
    assert [each.name for each in read_curves([run, run / "pretrain", tmp_path / "other" / "run"])] == [
        f"{tmp_path.name}/run/finetune",
        f"{tmp_path.name}/run/pretrain",
        "other/run/finetune",
        "other/run/pretrain",
    ]
    both = read_curves([run / "pretrain", run / "pretrain" / "checkpoint-5"])
    assert [each.name for each in both] == ["run/pretrain/checkpoint-10", "run/pretrain/checkpoint-5"]


def test_a_file_is_no_run(run):
    with pytest.raises(ValueError, match="trainer_state.json is a file: name the folder of a run"):
        read_curves([run / "pretrain" / "checkpoint-5" / "trainer_state.json"])


@pytest.mark.parametrize("name", ["curves.png", "curves.svg"])
def test_runs_are_drawn(run, tmp_path, name):
    draw_curves(read_curves([run]), tmp_path / name, ["rsum", "i2t_recall@1"])
    if name.endswith("png"):
        with Image.open(tmp_path / name) as image:
            assert image.height > image.width  # four panels
    else:
        text = (tmp_path / name).read_text()
        assert text.count('id="axes_') == 4 and "<svg" in text


def test_names_are_shown_as_they_are(run, tmp_path):
    for name in ("$$ costs $\\frac{", "_hidden"):
        shutil.copytree(run, tmp_path / name)
    draw_curves(read_curves([tmp_path / "$$ costs $\\frac{", tmp_path / "_hidden"]), tmp_path / "curves.svg", ["rsum"])
    page = (tmp_path / "curves.svg").read_text()
    assert "<!-- $$ costs $\\frac{/finetune -->" in page and "_hidden/finetune" in page


def test_more_lines_than_colours_differ_in_their_dashes(tmp_path):
    draw_curves([Curves(f"run {n}", {"loss": [(1, n), (2, n)]}) for n in range(11)], tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().count("stroke-dasharray") == 2  # a line, and its place in the legend


def test_a_picture_that_cannot_be_written_leaves_the_old_one(run, tmp_path, monkeypatch):
    out = tmp_path / "curves.png"
    out.write_bytes(b"old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda self, path: path.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        draw_curves(read_curves([run]), out)
    assert out.read_bytes() == b"old"


def test_without_a_choice_the_main_metric_is_drawn(run, tmp_path):
    draw_curves(read_curves([run]), tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_text().count('id="axes_') == 3


def test_what_cannot_be_drawn_is_told(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_curves([tmp_path / "none"])
    with pytest.raises(FileNotFoundError, match="no checkpoint of a run"):
        read_curves([run / "hub"])
    with pytest.raises(ValueError, match="no evaluation of these runs has 'recall'; there are: i2t_recall@1, rsum"):
        draw_curves(read_curves([run]), tmp_path / "curves.png", ["recall"])
    with pytest.raises(ValueError, match="curves.xyz"):
        draw_curves(read_curves([run]), tmp_path / "curves.xyz")
    endless = '{"log_history": [{"step": Infinity, "loss": 1}]}'
    for content in ("{", "[]", '{"log_history": 3}', '{"log_history": [{"loss": 1}]}', endless):
        (run / "pretrain" / "checkpoint-10" / "trainer_state.json").write_text(content)
        with pytest.raises(ValueError, match="not the record of a run .*; name another checkpoint"):
            read_curves([run / "pretrain"])
    (run / "pretrain" / "checkpoint-10" / "trainer_state.json").write_text('{"log_history": []}')
    with pytest.raises(ValueError, match="logged nothing yet"):
        draw_curves(read_curves([run / "pretrain"]), tmp_path / "curves.png")
