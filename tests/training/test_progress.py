"""While a run works it says so on stderr; stdout holds results."""

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from vsehub.training.progress import StderrTrainer, as_duration, reported_by


class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return {"loss": ((self.weight - x) ** 2).mean()}


@pytest.mark.parametrize("bar", [True, False])
@pytest.mark.parametrize("quiet", [True, False])
def test_numbers_go_to_stderr_and_quiet_silences_them(bar, quiet, tmp_path, capsys, monkeypatch):
    if quiet:
        monkeypatch.setenv("TQDM_DISABLE", "1")
    options = {"max_steps": 2, "logging_steps": 1, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(str(tmp_path), disable_tqdm=not bar, **options)
    StderrTrainer(Line(), arguments, train_dataset=[{"x": torch.ones(1)}] * 8).train()
    said = capsys.readouterr()
    assert said.out == "" and ("'loss':" in said.err) is not quiet


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
    assert counter.steps == 2 and "'loss':" in capsys.readouterr().err


@pytest.mark.parametrize(("steps", "said_so"), [(60, True), (30, False)])
def test_a_long_stage_says_when_it_will_end(steps, said_so, tmp_path, capsys):
    options = {"logging_steps": 50, "report_to": "none", "save_strategy": "no", "use_cpu": True}
    arguments = TrainingArguments(str(tmp_path / "finetune"), max_steps=steps, **options)
    StderrTrainer(Line(), arguments, train_dataset=[{"x": torch.ones(1)}] * 8).train()
    said = capsys.readouterr().err
    assert ("finetune: " in said and "40 steps are left, until about " in said) is said_so


def test_a_duration_has_the_unit_that_fits():
    assert [as_duration(s) for s in (50, 750, 12_600, 200_000)] == ["50 s", "12 min", "3.5 h", "2.3 days"]
