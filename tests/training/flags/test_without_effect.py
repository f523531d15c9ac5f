"""Settings that another one makes void are refused; not so at a default, or in a shared recipe."""

from dataclasses import fields

import pytest

from vsehub.training.d2s_stages import STAGES as D2S_STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.flags.without_effect import UNUSED, VOID
from vsehub.training.pir_stages import STAGES as PIR_STAGES
from vsehub.training.run_rebalanced import DEFAULTS
from vsehub.training.stage_arguments import read_stages

SYSTEMS = {"d2s": (D2S_STAGES, D2S_ARGUMENTS), "pir": (PIR_STAGES, PIR_ARGUMENTS)}


def read(system, *flags, recipe=None, defaults=None):
    words = [] if recipe is None else [str(recipe)]
    return read_stages([*words, "--data", "d", "--use_cpu", "True", *flags], *SYSTEMS[system], defaults)


@pytest.mark.parametrize(
    ("system", "flags", "said"),
    [
        ("d2s", "--cache_views 2", "--cache_views 2 has no effect without --cache_vision: add --cache_vision True"),
        ("d2s", "--lr_decay 0.1", "--lr_decay 0.1 has no effect without --lr_milestones: set that"),
        (
            "d2s",
            "--lr_scheduler_type cosine --lr_milestones 3 5",
            "has no effect beside --lr_milestones 3 5: leave",
        ),
        ("d2s", "--shuffle_buffer 10", "--shuffle_buffer 10 has no effect without --streaming"),
        ("d2s", "--structure_relation fused", "--structure_relation fused has no effect without --structure_weight"),
        ("d2s", "--structure_centre none", "--structure_centre none has no effect without --structure_weight"),
        ("d2s", "--structure_weight 1 --text_share 0.3", "beside --structure_relation own: choose"),
        (
            "d2s",
            "--align infonce --margin 0.3",
            "--margin 0.3 has no effect beside --align infonce: choose",
        ),
        ("d2s", "--align infonce --mean_warmup_epochs 2", "--mean_warmup_epochs 2 has no effect beside"),
        ("d2s", "--temperature 0.05", "--temperature 0.05 has no effect beside --align hinge"),
        ("d2s", "--objective_lr 0.1", "--objective_lr 0.1 has no effect beside --align hinge, without"),
        ("d2s", "--distill_weight 0 --distance l1", "--distance l1 has no effect without --distill_weight"),
        ("d2s", "--freeze_vision True --freeze_text True --tower_lr_scale 1", "--tower_lr_scale 1 has no effect"),
        (
            "d2s",
            "--freeze_vision True --train_vision_from layer.3",
            "one freezes what the other trains; leave --freeze_",
        ),
        ("d2s", "--freeze_vision True --freeze_vision_batch_norm False", "--freeze_vision_batch_norm False has no"),
        ("d2s", "--freeze_text True --cache_text True --text_augmentation 0.4", "beside --cache_text True"),
        (
            "d2s",
            "--freeze_vision True --cache_vision True --image_augmentation rand_augment",
            "--image_augmentation rand_augment has no effect beside --cache_vision True and --cache_views 1",
        ),
        (
            "d2s",
            "--freeze_vision True --cache_vision True --cache_views 2 --image_augmentation none",
            "--cache_views 2 has no effect beside --image_augmentation none",
        ),
        ("d2s", "--weight_decay 0 --decay_biases_and_norms False", "has no effect without --weight_decay"),
        ("d2s", "--lr_scheduler_type constant --warmup_steps 9", "choose constant_with_warmup"),
        ("d2s", "--eval_steps 5", "--eval_steps 5 has no effect beside --eval_strategy epoch: add --eval_strategy"),
        ("d2s", "--save_steps 5", "--save_steps 5 has no effect beside --save_strategy epoch"),
        ("d2s", "--logging_strategy epoch --logging_steps 5", "--logging_steps 5 has no effect beside"),
        ("d2s", "--hub_model_id me/mine", "--hub_model_id me/mine has no effect without --push_to_hub"),
        ("d2s", "--do_eval False", "a run evaluates what it selects"),
        ("d2s", "--pretrain.distance l1", "--pretrain.distance l1 has no effect: the stage pretrain does not use it"),
        ("d2s", "--finetune.dense_sampling True", "the stage finetune does not use it"),
        ("pir", "--margin 0.3", "--margin 0.3 has no effect beside --contrast infonce: choose --contrast triplet"),
        ("pir", "--contrast triplet --temperature 0.05", "--temperature 0.05 has no effect beside --contrast triplet"),
        ("pir", "--affiliation_weight 0 --affiliation_temperature 0.1", "has no effect without --affiliation_weight"),
        (
            "pir",
            "--prior.tower_lr_scale 1",
            "--prior.tower_lr_scale 1 has no effect: the stage prior does not use it",
        ),
        ("pir", "--stages prior --eval_steps 5", "--eval_steps 5 has no effect beside --eval_strategy epoch"),
    ],
)
def test_what_another_setting_makes_void_is_refused_with_the_remedy(system, flags, said):
    with pytest.raises(ValueError) as caught:
        read(system, *flags.split())
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("system", "flags"),
    [
        ("d2s", "--cache_views 1 --margin 0.2 --align infonce --shuffle_buffer 1000 --do_eval True"),  # the defaults
        ("d2s", "--freeze_vision True --cache_vision True --image_augmentation none"),  # says what is so
        ("d2s", "--freeze_text True --cache_text True --text_augmentation 0"),
        ("d2s", "--finetune.align infonce --margin 0.3"),  # pretrain has the hinge
        ("d2s", "--pretrain.cache_vision True --freeze_vision True --cache_views 2"),
        ("d2s", "--stages pretrain --distance l1"),  # flags that all stages share
        ("d2s", "--structure_weight 2 --pretrain.structure_weight 0"),
        ("pir", "--freeze_vision True --freeze_vision_batch_norm False"),  # of the prior
        ("pir", "--lr_milestones 3 --lr_scheduler_type cosine"),  # of the prior
        ("pir", "--stages prior --temperature 0.05 --contrast triplet"),
        ("pir", "--contrast triplet --objective_lr 0.1"),  # the affiliation loss has a temperature
    ],
)
def test_a_default_what_agrees_and_what_one_stage_uses_are_not_refused(system, flags):
    assert read(system, *flags.split())


def test_a_flag_may_switch_off_what_a_recipe_says(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("freeze_vision: true\ncache_vision: true\ncache_views: 2\nalign: infonce\ntemperature: 0.05\n")
    assert read("d2s", "--cache_vision", "False", "--align", "hinge", recipe=recipe)
    recipe.write_text("cache_views: 2\n")
    with pytest.raises(ValueError, match="--cache_views 2 has no effect"):
        read("d2s", recipe=recipe)


@pytest.mark.parametrize("flags", ["--freeze_vision True", "--pretrain.freeze_vision True"])
def test_a_tower_that_a_recipe_trains_in_part_and_a_flag_freezes_is_told_at_once(tmp_path, flags):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train_vision_from: layer.13\n")
    with pytest.raises(ValueError) as caught:
        read("d2s", *flags.split(), recipe=recipe)
    said = str(caught.value)
    assert "train_vision_from layer.13 of the recipe" in said and "take train_vision_from out of a copy" in said
    assert "stage pretrain: --freeze_vision True" in said and "leave --freeze_vision out" in said
    assert "\n" not in said


def test_the_last_blocks_of_a_tower_that_a_recipe_freezes_need_one_more_flag(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("freeze_vision: true\n")
    with pytest.raises(ValueError, match="--train_vision_from layer.3: .*; add --freeze_vision False, or leave"):
        read("d2s", "--train_vision_from", "layer.3", recipe=recipe)
    assert read("d2s", "--train_vision_from", "layer.3", "--freeze_vision", "False", recipe=recipe)


def test_adapters_beside_the_last_blocks_of_a_tower_are_refused_before_the_data_are_read(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train_vision_from: layer.13\n")
    with pytest.raises(ValueError, match="--lora True .*take train_vision_from out of a copy"):
        read("d2s", "--lora", "True", recipe=recipe)
    with pytest.raises(ValueError, match="--lora True and --train_vision_from layer.3"):
        read("d2s", "--lora", "True", "--train_vision_from", "layer.3")


def test_a_recipe_is_told_what_a_stage_of_its_own_does_not_use(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("pretrain: {distance: l1}\n")
    with pytest.raises(ValueError, match="--pretrain.distance l1 has no effect"):
        read("d2s", recipe=recipe)
    assert read("d2s", "--stages", "baseline", recipe=recipe)


def test_the_defaults_of_a_system_are_never_refused():
    assert read("d2s", "--structure_weight", "0", defaults=DEFAULTS)


def test_every_name_of_the_tables_is_a_setting():
    known = {item.name for _, kinds in SYSTEMS.values() for kind in kinds for item in fields(kind)}
    assert {name for rule in VOID for name in (*rule.names.split(), *rule.where)} <= known
    assert set().union(*UNUSED.values()) <= known
    assert set(UNUSED) == {*D2S_STAGES, *PIR_STAGES}
