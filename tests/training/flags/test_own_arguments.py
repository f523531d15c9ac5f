"""Our flags without torch, and what they are worth once they are joined with those of transformers."""

import subprocess
import sys
from dataclasses import fields

import pytest

from vsehub.training.flags import own_arguments
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS


@pytest.mark.parametrize("kinds", [D2S_ARGUMENTS, PIR_ARGUMENTS])
def test_our_defaults_win_over_those_of_transformers(kinds, tmp_path):
    ours, joined = own_arguments.RetrievalArguments(), kinds[-1](output_dir=str(tmp_path))
    for item in fields(ours):
        if item.name not in ("output_dir", "eval_strategy", "save_strategy"):
            assert getattr(joined, item.name) == getattr(ours, item.name), item.name
    assert joined.eval_strategy == "epoch" and joined.save_strategy == "epoch"


def test_they_are_read_without_torch_and_transformers():
    code = "import sys, vsehub.training.flags.own_arguments; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr
