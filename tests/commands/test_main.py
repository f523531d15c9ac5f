import subprocess
import sys

import pytest
import torch

import vsehub
from vsehub.__main__ import VERBS, main


def test_help_lists_every_verb(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(verb in listed for verb in VERBS)


@pytest.mark.parametrize("words", [*VERBS, "train pir", "index export", "convert pir", "convert d2s-vse"])
def test_every_verb_has_help(words, capsys):
    try:
        status = main([*words.split(), "--help"])
    except SystemExit as stopped:  # argparse's way to end
        status = stopped.code
    assert not status, capsys.readouterr().err
    assert "usage: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fly"], "no verb 'fly'"),
        (["train", "missing.yaml"], "missing.yaml"),
        (["train", "--data", "./nowhere"], "no such file or folder"),
        (["train", "--learning_rat", "1"], "--learning_rat"),
        (["convert", "pickle"], "d2s-vse"),
        (["evaluate", "./nowhere", "--data", "./nothing"], "./nowhere: no such folder"),
        (["index", "", "--model", "m", "--out", "x"], "argument 1 is empty"),
        (["index", "photos", "--model", "m", "--out", ""], "argument 5 (after --out) is empty"),
        (["compare", "a.json", "--json="], "argument 2 is empty"),
        (["index", "calibrate", ".", "--data", "d", "--off_topic", "absent"], "absent: no such file or directory"),
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


@pytest.mark.parametrize(
    ("module", "kind", "status"),
    [("builtins", KeyboardInterrupt, 130), ("httpx2", Exception, 2), ("builtins", OSError, 2)],
)
def test_an_interrupt_and_a_hub_out_of_reach_are_one_line(module, kind, status, monkeypatch, capsys):
    def fail(words):
        raise type("Failure", (kind,), {"__module__": module})("why")

    monkeypatch.delenv("VSEHUB_TRACEBACK", raising=False)
    monkeypatch.setattr("vsehub.commands.push.main", fail)
    assert main(["push", "a", "b"]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("verb", "remedy"),
    [("index", "lower --batch_size"), ("train", "lower --per_device_train_batch_size"), ("serve", "another --device")],
)
def test_a_full_device_is_one_line_with_the_remedy(verb, remedy, monkeypatch, capsys):
    def fail(words):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")

    monkeypatch.delenv("VSEHUB_TRACEBACK", raising=False)
    monkeypatch.setattr(f"vsehub.commands.{verb}.main", fail)
    assert main([verb, "a"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vsehub {verb}: the device has too little memory") and remedy in line
    monkeypatch.setenv("VSEHUB_TRACEBACK", "1")
    with pytest.raises(torch.OutOfMemoryError):
        main([verb, "a"])


def test_other_errors_of_pytorch_keep_their_traceback(monkeypatch):
    def fail(words):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr("vsehub.commands.index.main", fail)
    with pytest.raises(RuntimeError, match="shapes"):
        main(["index", "a"])


def test_our_own_faults_keep_their_traceback(monkeypatch):
    monkeypatch.setattr("vsehub.commands.push.main", lambda words: {}["absent"])
    with pytest.raises(KeyError):
        main(["push", "a", "b"])


def test_a_reader_that_has_seen_enough_is_no_error():
    words = f"{sys.executable} -m vsehub train 2>&1 | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() in ("2", "141") and done.stderr == ""


def test_the_module_runs_as_a_script():
    done = subprocess.run([sys.executable, "-m", "vsehub", "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "vsehub VERB" in done.stdout


HELP = """
import contextlib, io, sys
import vsehub
from vsehub.__main__ import VERBS, main
for words in (*VERBS, "index export", "index calibrate", "index remove", "convert pir", "convert d2s-vse", "train pir"):
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*words.split(), "--help"])
    assert "usage: vsehub " in said.getvalue() and "example" in said.getvalue(), words
print({"torch", "transformers", "numpy", "datasets"} & set(sys.modules))
"""


def test_help_of_every_verb_has_an_example_and_loads_nothing_slow():
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "set()", done.stderr


def test_the_version_is_printed_and_a_misspelt_verb_is_guessed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"vsehub {vsehub.__version__}\n"
    assert main(["serch", "x"]) == 2
    assert capsys.readouterr().err == "vsehub: no verb 'serch'; did you mean search?\n"
    assert main(["check_leakage"]) == 2
    assert "vsehub check-leakage: DATA is missing" in capsys.readouterr().err
