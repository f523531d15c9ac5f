"""Flags that verbs share: their types, JSON, quiet, devices."""

import argparse
import json
import os

import pytest

from vsehub.commands import flags
from vsehub.commands.quiet import unhush


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (flags.dtype_name, {"bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "float16", "auto": "auto"}, []),
        (flags.device_name, {"auto": "auto", "cuda:1": "cuda:1", "cpu": "cpu", "mps": "mps"}, ["gpu", "cuda:x", ""]),
    ],
)
def test_types_take_what_is_in_range(kind, good, bad):
    assert {text: kind(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="must be"):
            kind(text)


def test_json_is_printed_or_written_beside_the_text(parser, tmp_path, capsys):
    content = {"hits": [1]}
    flags.tell(parser.parse_args(["m"]), "a table", content)
    assert capsys.readouterr().out == "a table\n"
    flags.tell(parser.parse_args(["m", "--json"]), "a table", content)
    assert json.loads(capsys.readouterr().out) == content
    path = tmp_path / "new" / "out"
    flags.tell(parser.parse_args(["m", "--json", str(path)]), "a table", content)
    assert capsys.readouterr().out == "a table\n" and json.loads(path.read_text()) == content
    with pytest.raises(IsADirectoryError, match="is a folder"):
        parser.parse_args(["m", "--json", str(tmp_path)])


def test_of_several_processes_the_first_tells(parser, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    flags.tell(parser.parse_args(["m"]), "a table", {})
    assert capsys.readouterr().out == ""


def test_quiet_silences_remarks(parser, capsys):
    flags.remark(parser.parse_args(["m"]), "by the way")
    assert capsys.readouterr().err == "by the way\n"
    try:
        flags.remark(parser.parse_args(["m", "--quiet"]), "by the way")
    finally:
        unhush()
    assert capsys.readouterr().err == ""


def test_a_device_that_is_not_there_is_told(monkeypatch):
    import torch

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(flags.chosen_device("cpu")) == "cpu" == os.environ["ACCELERATE_TORCH_DEVICE"]
    with pytest.raises(ValueError, match="--device cuda:1: there is no such device here; take --device cpu"):
        flags.chosen_device("cuda:1")
    os.environ["WORLD_SIZE"] = "2"
    with pytest.raises(ValueError, match="each has a device of its own"):
        flags.chosen_device("cpu")
    assert flags.chosen_device("auto").type in ("cpu", "mps")
