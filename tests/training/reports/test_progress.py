"""While a run works it says so on stderr; stdout holds results."""

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from vsehub.training.reports.progress import StderrTrainer, Table, as_duration, places_lines, reported_by


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, labels=None):
        return {"loss": ((self.weight - x) ** 2).mean(), "logits": x}


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("quiet", [True, False])
def test_numbers_go_to_stderr_and_quiet_silences_them(bar, quiet, tmp_path, capsys, monkeypatch):
    if quiet:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    options = {"max_steps": 2, "logging_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(str(tmp_path), disable_tqdm=not bar, **options)
    StderrTrainer(Line(), arguments, train_dataset=[{"x": torch.ones(1)}] * 8).train()
    said = capsys.readouterr()
    assert said.out == "" and (" weights" in said.err) is not quiet and "{" not in said.err
    assert bool(said.err) is not quiet and ("step 2 of 2, loss " in said.err) is (not quiet and not bar)


def test_a_reporter_takes_the_place_of_bar_and_numbers(tmp_path, capsys):
    class Counter(TrainerCallback):
        steps = 0

        def on_step_end(self, *args, **kwargs):
            self.steps += 1

    counter, rows = Counter(), [{"x": torch.ones(1)}] * 8
    arguments = TrainingArguments(str(tmp_path), max_steps=2, logging_steps=1, report_to="none", use_cpu=True)
    with reported_by(counter):
        trainer = StderrTrainer(Line(), arguments, train_dataset=rows)
    trainer.train()
    assert counter.steps == 2 and capsys.readouterr() == ("", "")
    StderrTrainer(Line(), arguments, train_dataset=rows).train()
    assert counter.steps == 2 and " weights" in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "said_so"), [(60, True), (30, False)])
def test_a_long_stage_says_when_it_will_end(steps, said_so, tmp_path, capsys):
    options = {"logging_steps": 50, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(str(tmp_path / "finetune"), max_steps=steps, **options)
    StderrTrainer(Line(), arguments, train_dataset=[{"x": torch.ones(1)}] * 8).train()
    said = capsys.readouterr().err
    assert ("finetune: " in said and "40 steps are left, until about " in said) is said_so


def test_a_duration_has_the_unit_that_fits():
    assert [as_duration(s) for s in (50, 750, 12_600, 200_000)] == ["50 s", "12 min", "3.5 h", "2.3 days"]


def test_an_evaluation_is_a_line_of_a_table_with_the_loss_before_it(tmp_path, capsys):
    options = {"max_steps": 4, "logging_steps": 2, "report_to": "none", "use_cpu": True, "save_strategy": "no"}
    arguments = TrainingArguments(str(tmp_path / "finetune"), eval_strategy="steps", eval_steps=2, **options)
    rows = [{"x": torch.ones(1), "labels": torch.ones(1)}] * 8
    trainer = StderrTrainer(
        Line(), arguments, train_dataset=rows, eval_dataset=rows, compute_metrics=lambda _: {"rsum": 12.5}
    )
    trainer.train()
    trainer.evaluate()  # of the same weights: no line again
    lines = [line.split() for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "|" not in line]
    table = [line for line in lines if line[:1] in (["stage"], ["finetune"]) and len(line) == 4]
    assert table[0] == ["stage", "step", "loss", "rSum"] and len(table) == 3
    assert table[1] == ["finetune", "2", "1.000", "12.5"] and table[2][1] == "4"


def test_a_model_that_was_selected_has_a_line_where_it_is_another():
    table = Table()
    assert table.lines("finetune", 2, {"eval_rsum": 50.0})[1:] == [
        "stage         step    rSum",
        "finetune         2    50.0",
    ]
    table.loss = 0.25
    assert table.lines("finetune", 4, {"eval_rsum": 40.0}) == ["finetune         4   0.250    40.0"]
    table.trained = True
    assert table.lines("finetune", 4, {"eval_rsum": 50.0}) == ["finetune      best   0.250    50.0"]
    table.trained = True
    assert table.lines("finetune", 4, {"eval_rsum": 50.0}) == []


def test_places_stand_below_each_other():
    assert places_lines([("a page", "x.html"), ("numbers", "y.json")])[2:] == [
        "  a page                  x.html",
        "  numbers                 y.json",
    ]
