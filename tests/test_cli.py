import subprocess
import sys

import pytest

from vsehub.__main__ import VERBS, main


def test_help_lists_every_verb(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(verb in listed for verb in VERBS)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fly"], "no verb 'fly'"),
        (["train", "missing.yaml"], "missing.yaml"),
        (["train", "--data", "./nowhere"], "no such file or folder"),
        (["train", "--learning_rat", "1"], "--learning_rat"),
        (["convert", "pickle"], "d2s-vse"),
        (["evaluate", "./nowhere", "--data", "./nothing"], "./nowhere: no such folder"),
    ],
)
def test_bad_input_is_one_line_and_status_two(words, expected, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VSEHUB_TRACEBACK", raising=False)
    try:
        status = main(words)
    except SystemExit as stop:  # argparse
        status = stop.code
    errors = capsys.readouterr().err.strip()
    assert status == 2 and expected in errors
    assert "Traceback" not in errors and len(errors.splitlines()) == 1


def test_the_module_runs_as_a_script():
    done = subprocess.run([sys.executable, "-m", "vsehub", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "vsehub VERB" in done.stdout
