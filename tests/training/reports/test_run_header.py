"""A stage says what is trained, on what, for how long."""

from types import SimpleNamespace

import pytest
import torch
from small_trainers import trainer_of

from vsehub.training.reports.run_header import facts, header_of, peak_memory


@pytest.fixture
def trainer(scenes, tmp_path):
    """A trainer of a small model."""
    return trainer_of(scenes, tmp_path)


def told_of(trainer, steps=1200, done=0) -> dict[str, str]:
    return dict(facts(trainer, trainer.args, SimpleNamespace(max_steps=steps, global_step=done)))


def test_towers_weights_data_and_steps_are_told(trainer):
    told, items = told_of(trainer), trainer.train_dataset
    for tower in (trainer.model.vision_model, trainer.model.text_model):
        assert tower.config.model_type in told["towers"]
    assert told["trained"].endswith(" weights") and " GB for weights" in told["memory"]
    held = len(trainer.eval_dataset)
    assert told["data"] == f"{len(items.rows)} pictures, {len(items)} texts; {held} pictures to evaluate"
    assert told["steps"] == f"1,200 of 8 each, {9600 / len(items):.2g} epochs; evaluated at the end"


@pytest.mark.parametrize(
    ("steps", "delay", "said"),
    [
        (500, 0, "evaluated every 500 steps, the best rsum counts"),
        (0.25, 0, "evaluated every 300 steps, the best rsum counts"),
        (2000, 0, "evaluated at the end alone (--eval_steps 2000), so the last counts"),
        (500, 1001, "evaluated at the end alone (--eval_steps 500), so the last counts"),
    ],
)
def test_how_often_a_stage_is_evaluated_is_told_also_where_it_is_too_short(trainer, steps, delay, said):
    trainer.args.eval_strategy, trainer.args.load_best_model_at_end = "steps", True
    trainer.args.eval_steps, trainer.args.eval_delay = steps, delay
    assert told_of(trainer)["steps"].endswith(f"; {said}")


def test_a_frozen_tower_and_one_that_is_trained_in_part_are_told(trainer):
    model = trainer.model
    model.vision_model.requires_grad_(False)
    model.text_model.requires_grad_(False)
    last = list(model.text_model.parameters())[-1].requires_grad_(True)
    told = told_of(trainer, done=4)
    vision, text = told["towers"].split("), ")
    assert vision.endswith("frozen") and text.endswith(f"{last.numel():,} trained)")
    assert ", 4 of them done; " in told["steps"]


def test_the_header_names_the_stage_and_the_device(trainer):
    lines = header_of(trainer, trainer.args, SimpleNamespace(max_steps=10, global_step=0))
    assert " on the CPU, " in lines[0] and all(line.startswith("  ") for line in lines[1:])


def test_memory_is_told_where_it_is_known():
    assert peak_memory(torch.device("cpu")).endswith(" GB of memory so far")
