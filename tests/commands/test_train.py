"""`vsehub train`: the choice of a script, dashed flags, one line for what is wrong."""

import pytest

from vsehub.__main__ import main
from vsehub.training import run_d2s, run_pir
from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS
from vsehub.training.flags.recipe import parse_stages


def test_all_flags_are_those_of_transformers_too(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "pir", "--help-all"])
    said = capsys.readouterr().out
    assert not stopped.value.code and "--warmup_steps" in said and "--filter_size" in said


@pytest.mark.parametrize(
    ("words", "script"),
    [
        (["--data", "x"], run_d2s),
        (["d2s", "--data", "x"], run_d2s),
        (["pir", "--data", "x"], run_pir),
        (["r.yaml"], run_pir),
    ],
)
def test_a_script_is_chosen_by_name_or_recipe(words, script, tmp_path, monkeypatch):
    (tmp_path / "r.yaml").write_text("system: pir\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "main", lambda rest: seen.append(rest) or 0)
    seen = []
    assert main(["train", *words]) == 0
    assert seen == [words if words[0] not in ("d2s", "pir") else words[1:]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "say what to train"),
        (["fly.yaml"], "system 'fly' is not one of"),
        (["--learning-rat", "1"], "--learning_rat"),
        (["--image-root", "x"], "say what to train on: --data"),
    ],
)
def test_what_is_wrong_is_one_line(words, said, tmp_path, monkeypatch, capsys):
    (tmp_path / "fly.yaml").write_text("system: fly\n")
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and len(error.splitlines()) == 1


def test_a_dashed_flag_spares_the_variable_of_a_recipe(tmp_path):
    (tmp_path / "r.yaml").write_text("image_root: $NOT_SET_ANYWHERE\nfinetune: {max_steps: 3}\n")
    parsed, _ = parse_stages(
        [str(tmp_path / "r.yaml"), "--image-root", "a-b", "--finetune.max-steps=5"], STAGES, D2S_ARGUMENTS
    )
    assert {parsed[stage][1].image_root for stage in STAGES} == {"a-b"} and parsed["finetune"][3].max_steps == 5
    assert parsed["pretrain"][3].max_steps == -1
