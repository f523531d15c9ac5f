"""`vsehub train --help`: systems, recipes, and every flag of ours with its type and default."""

from dataclasses import fields

import pytest

from vsehub.__main__ import main
from vsehub.training.flags import own_arguments


@pytest.mark.parametrize(
    ("word", "system"), [("--stages", "d2s"), ("d2s", "d2s"), ("rebalanced", "d2s"), ("pir", "pir")]
)
def test_help_names_every_flag_of_the_system(word, system, capsys):
    assert main(["train", word, "--help"]) == 0
    said = capsys.readouterr().out
    for kind in own_arguments.OURS[system]:
        assert all(f"--{item.name} " in said for item in fields(kind))
    assert "usage: vsehub train" in said and "--help-all" in said and "--warmup_steps" not in said
    assert said.index("systems, and the stages") < said.index("d2s_vse_demo") < said.index("\nmodel:")
    assert "--lr_milestones FLOAT [FLOAT ...]" in said and "--image_augmentation {none,crop,rand_augment}" in said
    assert "crop (60-100 %)" in " ".join(said.split())


@pytest.mark.parametrize("system", ["d2s", "pir"])
def test_every_flag_of_ours_says_what_it_is(system):
    silent = [item.name for kind in own_arguments.OURS[system] for item in fields(kind) if "help" not in item.metadata]
    assert not silent
