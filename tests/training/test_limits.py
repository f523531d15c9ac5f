"""What a run refuses when its flags are read: ranges, settings without effect, metrics that no evaluation gives."""

import argparse
import subprocess
import sys
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from small_runs import SMALL, run
from transformers import SchedulerType, TrainingArguments

from vsehub.training import run_d2s
from vsehub.training import stages as stages_module
from vsehub.training.arguments import D2S_ARGUMENTS, PIR_ARGUMENTS
from vsehub.training.limits import (
    RANGES,
    REFUSED,
    REFUSED_FOR_PAIRS,
    check_fsdp,
    check_launch,
    check_metric_of_rows,
    with_ranges,
)
from vsehub.training.recipe import _Parser
from vsehub.training.stages import read_stages
from vsehub.training.trainer import ZERO_STEPS, RetrievalTrainer

WORKS = set(
    """output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps warmup_ratio optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    gradient_accumulation_steps max_grad_norm bf16 fp16 tf32 activation_checkpointing activation_checkpointing_kwargs
    gradient_checkpointing gradient_checkpointing_kwargs torch_compile torch_compile_backend torch_compile_mode
    torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node logging_nan_inf_filter
    log_level log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
    trackio_static_space_id eval_strategy eval_steps eval_delay per_device_eval_batch_size eval_on_start
    save_only_model save_strategy save_steps save_on_each_node save_total_limit enable_jit_checkpoint push_to_hub
    hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision load_best_model_at_end
    metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism
    seed data_seed use_cpu accelerator_config dataloader_drop_last dataloader_num_workers dataloader_pin_memory
    dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context dataloader_in_order
    train_sampling_strategy ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph
    ddp_backend ddp_timeout debug skip_memory_metrics do_eval resume_from_checkpoint local_rank logging_dir
    jit_mode_eval fsdp fsdp_config""".split()
)
GIVEN = {  # a value that is not the default
    "label_smoothing_factor": "0.1", "eval_accumulation_steps": "2", "neftune_noise_alpha": "5",
    "include_for_metrics": "inputs", "label_names": "labels",
    "length_column_name": "size", "optim_target_modules": "all-linear", "average_tokens_across_devices": "False",
    "eval_do_concat_batches": "False",
}  # fmt: skip
ELSEWHERE = {"liger_kernel_config", "parallelism_config", "deepspeed"}  # files, or checked by Trainer


def read(*flags, stages="baseline", kinds=D2S_ARGUMENTS, names=("pretrain", "finetune", "baseline")):
    return read_stages(["--data", "d", *SMALL[:10], "--stages", stages, "--use_cpu", "True", *flags], names, kinds)


def test_every_setting_of_trainer_works_or_is_refused():
    there = {item.name for item in fields(TrainingArguments)}
    assert there - WORKS - set(REFUSED) - set(REFUSED_FOR_PAIRS) == set()
    assert not WORKS & (set(REFUSED) | set(REFUSED_FOR_PAIRS))


@pytest.mark.parametrize(
    "name", sorted({*REFUSED, *REFUSED_FOR_PAIRS} & {item.name for item in fields(TrainingArguments)} - ELSEWHERE)
)
def test_what_has_no_effect_is_refused_with_its_name(name):
    with pytest.raises(ValueError, match=f"^--{name} ") as caught:
        read(f"--{name}", GIVEN.get(name, "True"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--train_sampling_strategy", "group_by_length"], "drawn at random"),
        (["--optim", "galore_adamw"], "groups of parameters"),
        (["--optim_args", "x"], "--optim_args x: write NAME=VALUE"),
        (["--optim", "schedule_free_adamw"], "groups of parameters"),
        (["--per_device_train_batch_size", "1"], "a pair alone has no negatives"),
        (["--bands", "1", "2"], "--bands 1 2: name three"),
        (["--metric_for_best_model", "recall"], "no evaluation gives it"),
        (["--metric_for_best_model", "eval_accuracy"], "no evaluation gives it"),
        (["--metric_for_best_model", "rsun"], "did you mean rsum"),
        (["--metric_for_best_model", "image_to_text_mean_rank"], "needs --greater_is_better False"),
        (["--greater_is_better", "False"], "needs --greater_is_better True"),
        (
            ["--report_to", "comet_ml"],
            "--report_to comet_ml: it is not installed .pip install comet_ml.; or leave it out",
        ),
        (["--report_to", "wandbb"], "--report_to wandbb: there are none, all, azure_ml,"),
        (["--lr_scheduler_kwargs", "abc"], "--lr_scheduler_type linear, --lr_scheduler_kwargs abc: .*mapping"),
        (["--lr_scheduler_kwargs", '{"min_lr": 1}'], "--lr_scheduler_kwargs .'min_lr': 1.: .*unexpected keyword"),
        (["--lr_scheduler_type", "cosine_with_min_lr"], "--lr_scheduler_type cosine_with_min_lr, .*: .*min_lr_rate"),
        (["--dataloader_persistent_workers", "True"], "without --dataloader_num_workers: add"),
        (["--fp16", "True"], "--fp16 True: on a CPU it has no effect; take --bf16 True"),
        (["--max_steps", "0"], "--max_steps 0: nothing would be trained"),
        (["--lora_rank", "8"], "--lora_rank 8 without --lora True"),
        (["--structure_bank", "64"], "--structure_bank 64 has no effect without --structure_weight"),
        (["--learn_text_share", "True"], "--learn_text_share True has no effect without"),
        (["--pairs_per_epoch", "600"], "--pairs_per_epoch 600 is of --streaming True"),
    ],
)
def test_settings_that_break_a_run_are_refused(flags, said):
    with pytest.raises(ValueError, match=said):
        read(*flags)


@pytest.mark.parametrize("name", sorted(each.value for each in SchedulerType))
def test_every_schedule_is_taken_with_the_settings_that_it_needs(name):
    needs = {"cosine_with_min_lr": '{"min_lr": 0.1}', "cosine_warmup_with_min_lr": '{"min_lr": 0.1}'}
    needs["warmup_stable_decay"] = '{"num_decay_steps": 10}'
    assert read("--lr_scheduler_type", name, *(["--lr_scheduler_kwargs", needs[name]] if name in needs else []))


@pytest.mark.parametrize("name", ["rsum", "eval_rsum", "image_to_text_recall@1", "5_fold_rsum"])
def test_a_metric_is_named_with_or_without_eval(name):
    training = read("--metric_for_best_model", name)["baseline"].training
    assert training.metric_for_best_model == f"eval_{name.removeprefix('eval_')}"


def test_the_prior_is_chosen_by_accuracy_whatever_chooses_retrieval():
    flags = ["--metric_for_best_model", "mean_recall", "--label_smoothing_factor", "0"]
    words = ["--data", "d", "--use_cpu", "True", *flags, "--prior.label_smoothing_factor", "0.1"]
    stages = read_stages([*words, "--prior.per_device_train_batch_size", "1"], ("prior", "retrieval"), PIR_ARGUMENTS)
    chosen = [args.training.metric_for_best_model for args in stages.values()]
    assert chosen == ["eval_accuracy", "eval_mean_recall"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("eval_scene_text_to_image_precision@1", "scene classes"),
        ("eval_duplicate_aware_text_to_image_recall@1", "captions that pictures share"),
        ("eval_5_fold_rsum", "5000 pictures"),
    ],
)
def test_a_metric_that_these_rows_do_not_give_is_refused_before_the_first_stage(name, said):
    rows = Dataset.from_dict({"captions": [["a"], ["b"]]})
    with pytest.raises(ValueError, match=said):
        check_metric_of_rows(name, rows)
    check_metric_of_rows("eval_rsum", rows)


def test_a_run_selects_by_a_metric_without_eval(scenes, tmp_path, capsys):
    run(scenes, tmp_path, "--stages", "baseline", "--metric_for_best_model", "image_to_text_recall@5")
    assert "baseline: image_to_text_recall@5" in capsys.readouterr().out


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
        read(f"--{flag}", value)


def test_a_loss_of_exactly_zero_stops_the_run():
    trainer = SimpleNamespace(state=SimpleNamespace(global_step=500), nonzero_step=None)

    def step(loss):
        RetrievalTrainer._check_zero(trainer, torch.tensor(loss), pairs=8)
        trainer.state.global_step += 1

    for loss in [0.0] * ZERO_STEPS + [1e-9] + [0.0] * (ZERO_STEPS - 1):
        step(loss)
    with pytest.raises(FloatingPointError, match="exactly 0 for 20 steps.*--per_device_train_batch_size"):
        step(0.0)


def test_a_hinge_without_margin_that_learns_nothing_says_so(scenes, tmp_path):
    """Two captions of one picture in each batch of two: there is no negative."""
    flags = ["--stages", "baseline", "--per_device_train_batch_size", "2", "--max_train_images", "1"]
    with pytest.raises(FloatingPointError, match="the 2 pairs of a step hold no negative"):
        run(scenes, tmp_path, *flags, "--max_steps", "30", "--eval_steps", "30", "--save_steps", "30")


def launched(processes=1, drop_last=True):
    """What `check_launch` looks at."""
    return SimpleNamespace(world_size=processes, dataloader_drop_last=drop_last, fsdp=None, n_gpu=0)


@pytest.mark.slow  # the check itself has fast tests
def test_fewer_processes_than_were_asked_for_are_refused(scenes, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", run_d2s.__file__]
    words = [*scenes, *SMALL, "--stages", "baseline", "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "torchrun --nproc_per_node N" in done.stderr
    assert not (tmp_path / "out").exists()


def test_one_process_that_accelerate_started_is_fine(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    check_launch(launched())
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launch(launched(2))


@pytest.mark.parametrize("name", ["FSDP", "DEEPSPEED"])
def test_sharding_that_a_launcher_asks_for_is_refused(monkeypatch, name):
    monkeypatch.setenv(f"ACCELERATE_USE_{name}", "true")
    with pytest.raises(ValueError, match=f"accelerate launch with {name}"):
        check_launch(launched())


def test_a_last_batch_that_processes_would_fill_up_is_refused():
    check_launch(launched(1, drop_last=False))
    with pytest.raises(ValueError, match="--dataloader_drop_last False"):
        check_launch(launched(2, drop_last=False))


def test_several_gpus_in_one_process_are_refused_before_any_work():
    training = launched(1)
    training.n_gpu = 2
    with pytest.raises(ValueError, match="one process sees 2 GPUs: .*--num_processes 2 .*CUDA_VISIBLE_DEVICES=0"):
        check_launch(training)


def test_sharding_for_one_process_is_refused():
    with pytest.raises(ValueError, match="--fsdp: one process .* torchrun --nproc_per_node N"):
        read("--fsdp")


def test_sharding_of_one_stage_of_two_is_refused(monkeypatch):
    monkeypatch.setattr(stages_module, "check_fsdp", lambda *args: None)
    with pytest.raises(ValueError, match="--fsdp for some stages"):
        read("--stages", "pretrain", "finetune", "--pretrain.fsdp", "full_shard")


def sharding(**settings):
    """What `check_fsdp` looks at."""
    plain = {"fsdp": True, "fsdp_config": {}, "world_size": 2, "device": torch.device("cpu"), "chunk_size": None}
    return SimpleNamespace(**{**plain, "fp16": False, "torch_compile": False, **settings})


@pytest.fixture
def without_gpu(monkeypatch):
    """Shards on a CPU are refused on a machine with GPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"fsdp": None, "fsdp_config": {"version": 2}}, "--fsdp_config without --fsdp"),
        ({"fsdp_config": {"version": 1}}, "only FSDP2"),
        ({"fsdp_config": {"cpu_offload": True}}, "--fsdp_config cpu_offload True"),
        ({"fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}, "state_dict_type SHARDED_STATE_DICT"),
        ({"fp16": True}, "--fp16 .take --bf16"),
        ({"torch_compile": True}, "--torch_compile"),
        ({"chunk_size": 8}, "--chunk_size"),
    ],
)
def test_what_shards_would_break_is_refused(settings, said, without_gpu):
    with pytest.raises(ValueError, match=said):
        check_fsdp(sharding(**settings))


def test_what_shards_can_do_is_not_refused(without_gpu):
    check_fsdp(sharding(fsdp=None))
    check_fsdp(sharding(fsdp_config={"version": 2, "xla": False, "min_num_params": 0, "reshard_after_forward": False}))
    with pytest.raises(ValueError, match="--cache_vision with --train_vision_from"):
        check_fsdp(sharding(), cached_tail=True)


def test_shards_on_the_cpu_of_a_machine_with_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError, match="--fsdp and --use_cpu"):
        check_fsdp(sharding())
