"""What a demo says: a header, a line for each evaluation, where everything lies; nothing of the libraries."""

import re

import pytest
import torch
from transformers import TrainingArguments

from vsehub.demos.console import Console
from vsehub.training.reports.progress import StderrTrainer


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels=None):
        return {"loss": ((self.weight - x) ** 2).mean(), "logits": x}


@pytest.fixture
def train(tmp_path):
    """A function: train two stages of two steps, and evaluate each twice at its end, as the stages of a run do."""

    def run():
        for stage in ("prior", "retrieval"):
            options = {
                "max_steps": 2,
                "logging_steps": 1,
                "report_to": "none",
                "use_cpu": True,
                "eval_strategy": "steps",
            }
            arguments = TrainingArguments(str(tmp_path / stage), eval_steps=2, save_strategy="no", **options)
            rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 8
            trainer = StderrTrainer(
                Line(), arguments, train_dataset=rows, eval_dataset=rows, compute_metrics=lambda _: {"accuracy": 12.5}
            )
            trainer.train()
            trainer.evaluate()
            print("a remark of the run")

    return run


def test_a_line_for_each_evaluation_and_no_dictionaries(train, capsys):
    console = Console()
    console.header("A title", [("data", "4 scenes")])
    with console.training(4):
        train()
    console.next_steps([("page", "runs/index.html")], [("look again", "vsehub look")])
    said = capsys.readouterr()
    assert said.out == "" and "{" not in said.err and "remark" not in said.err
    told = re.sub(r"\x1b\[\w", "", said.err)  # a bar of another test that is still open moves the cursor
    lines = told.replace("\r", "\n").splitlines()
    assert lines[0] == "A title" and "data      4 scenes" in lines
    assert [line for line in lines if "12.5" in line] == [
        "prior            2      12.5",
        "retrieval        2      12.5",
    ]
    assert sum("accuracy" in line for line in lines) == 2
    assert "runs/index.html" in said.err and lines[-2:] == ["  # look again", "  vsehub look"]


def test_verbose_lets_the_trainer_speak_and_quiet_nobody(train, capsys):
    with Console(verbose=True).training(4):
        train()
    said = capsys.readouterr()
    assert "loss 1.000" in said.err and said.out.count("a remark of the run") == 2
    quiet = Console(quiet=True)
    quiet.header("A title", [])
    with quiet.training(4):
        train()
    quiet.next_steps([], [])
    assert capsys.readouterr() == ("", "")
