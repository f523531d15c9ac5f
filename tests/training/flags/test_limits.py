"""What a run refuses when its flags are read: settings of Trainer without effect, or that break a run."""

from dataclasses import fields

import pytest
from small_runs import read_flags
from transformers import SchedulerType, TrainingArguments

from vsehub.training.flags.limits import REFUSED, REFUSED_FOR_PAIRS

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


def test_every_setting_of_trainer_works_or_is_refused():
    there = {item.name for item in fields(TrainingArguments)}
    assert there - WORKS - set(REFUSED) - set(REFUSED_FOR_PAIRS) == set()
    assert not WORKS & (set(REFUSED) | set(REFUSED_FOR_PAIRS))


@pytest.mark.parametrize(
    "name", sorted({*REFUSED, *REFUSED_FOR_PAIRS} & {item.name for item in fields(TrainingArguments)} - ELSEWHERE)
)
def test_what_has_no_effect_is_refused_with_its_name(name):
    with pytest.raises(ValueError, match=f"^--{name} ") as caught:
        read_flags(f"--{name}", GIVEN.get(name, "True"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--train_sampling_strategy", "group_by_length"], "drawn at random"),
        (["--train_sampling_strategy", "batch_rebalance"], "drawn at random"),
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
        read_flags(*flags)


@pytest.mark.parametrize("name", sorted(each.value for each in SchedulerType))
def test_every_schedule_is_taken_with_the_settings_that_it_needs(name):
    needs = {"cosine_with_min_lr": '{"min_lr": 0.1}', "cosine_warmup_with_min_lr": '{"min_lr": 0.1}'}
    needs["warmup_stable_decay"] = '{"num_decay_steps": 10}'
    assert read_flags("--lr_scheduler_type", name, *(["--lr_scheduler_kwargs", needs[name]] if name in needs else []))
