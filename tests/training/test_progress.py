"""While a run works it says so on stderr; stdout holds results."""

import pytest
import torch
from transformers import TrainerCallback, TrainingArguments

from vsehub.training.progress import StderrTrainer, reported_by


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
