"""Every number of a run has a range, and what is outside is refused when it is read."""

import argparse
from dataclasses import fields

import pytest
from small_runs import read_flags
from transformers import TrainingArguments

from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.flags.ranges import RANGES, with_ranges
from vsehub.training.flags.recipe import _Parser


@pytest.mark.parametrize("kinds", [D2S_ARGUMENTS, PIR_ARGUMENTS], ids=["d2s", "pir"])
def test_every_number_of_ours_has_a_range(kinds):
    own = {item.name for kind in kinds for item in fields(kind)} - {item.name for item in fields(TrainingArguments)}
    numbers = {action.dest for action in _Parser(kinds)._actions if action.type in (int, float)}
    assert (own & numbers) - set(RANGES) == set()
    assert numbers - set(RANGES) == set(), "of TrainingArguments"


FREE = dict.fromkeys(
    """learning_rate objective_lr weight_decay max_grad_norm tower_lr_scale adam_epsilon temperature distill_weight
    affiliation_temperature affiliation_weight structure_weight representation_image_weight representation_text_weight
    neftune_noise_alpha""".split(),
    ("99999999999999999999999",),  # odd, and what it does is said by the loss
)


@pytest.mark.parametrize("name", sorted(RANGES))
def test_no_number_is_read_that_cannot_be_meant(name):
    for value in ("nan", "inf", "-inf", "1e400", "-7", "", "one", "9" * 5000, "99999999999999999999999"):
        if value not in FREE.get(name, ()):
            with pytest.raises(argparse.ArgumentTypeError, match="^must be a .*number"):
                RANGES[name](value)


@pytest.mark.parametrize("kinds", [D2S_ARGUMENTS, PIR_ARGUMENTS], ids=["d2s", "pir"])
def test_the_ranges_are_those_of_the_parser(kinds):
    actions = {action.dest: action.type for action in with_ranges(_Parser(kinds))._actions}
    assert all(actions[name] is RANGES[name] for name in set(RANGES) & set(actions))
    assert int not in actions.values() and float not in actions.values()


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("image_size", "0"), ("image_size", "1000000000"), ("max_text_length", "0"), ("learning_rate", "0"),
        ("gradient_accumulation_steps", "0"), ("dataloader_num_workers", "1e20"), ("text_augmentation", "1.5"),
        ("text_dropout", "1"), ("num_train_epochs", "0"), ("num_train_epochs", "inf"), ("save_total_limit", "0"),
    ],
)  # fmt: skip
def test_edges_are_refused_when_the_flags_are_read(flag, value):
    with pytest.raises(ValueError, match=f"--{flag}.*must be a .*number .*, not {value}"):
        read_flags(f"--{flag}", value)
