import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL, equal, run
from transformers import AutoModel, Trainer, TrainingArguments

from vsehub import D2SVSEModel, D2SVSEProcessor
from vsehub.commands.evaluate import main as evaluate_main
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.evaluate import evaluate_model
from vsehub.training import pair_stage, run_d2s
from vsehub.training import trainer as trainer_module
from vsehub.training.arguments import D2S_ARGUMENTS
from vsehub.training.batches import PairCollator
from vsehub.training.d2s_stages import STAGES
from vsehub.training.dense_teacher import add_dense_text_embeds, teach
from vsehub.training.objectives import D2SObjective
from vsehub.training.pairs import PairDataset
from vsehub.training.recipe import parse_stages
from vsehub.training.stages import StageArguments
from vsehub.training.trainer import RetrievalTrainer, load_whole


def test_both_stages_leave_a_hub_folder_that_loads(both_stages):
    out, weights = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    assert model.config.use_decoder and not D2SVSEModel.from_pretrained(out / "pretrain" / "best").config.use_decoder
    assert len(list(model.encode_text(["a red circle"]))) == 1
    assert not [path for path in (out / "hub").iterdir() if path.suffix in (".bin", ".pt", ".pth")]
    results = json.loads((out / "validation.json").read_text())
    assert set(results) == {"pretrain", "finetune"} and 0 <= results["finetune"]["eval_rsum"] <= 600


def test_the_teacher_is_never_in_a_checkpoint(both_stages):
    out, weights = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    assert {key for key in weights if "teacher" in key or "long" in key} == set()
    assert sum(p.numel() for p in model.parameters()) < sum(w.numel() for w in weights.values()) + 1000


def test_stage_two_alone_continues_from_a_stage_one_folder(both_stages, scenes, tmp_path):
    out, weights = both_stages
    again = run(scenes, tmp_path, "--stages", "finetune", "--stage1_model", str(out / "pretrain" / "best"))
    assert equal(weights, again)


def test_resuming_a_finished_run_changes_nothing(scenes, tmp_path):
    first = run(scenes, tmp_path)
    assert equal(first, run(scenes, tmp_path, "--resume_from_checkpoint", "true"))


def test_an_interrupted_second_stage_resumes_from_the_first_stage_that_was(scenes, tmp_path):
    whole = run(scenes, tmp_path / "whole", "--load_best_model_at_end", "False", "--save_total_limit", "9")
    run(scenes, tmp_path / "broken", "--load_best_model_at_end", "False", "--save_total_limit", "9")
    shutil.rmtree(tmp_path / "broken" / "finetune" / "checkpoint-4")
    (tmp_path / "broken" / "finetune" / "finished.json").unlink()
    shutil.rmtree(tmp_path / "broken" / "hub")
    flags = ("--load_best_model_at_end", "False", "--save_total_limit", "9", "--resume_from_checkpoint", "true")
    assert equal(whole, run(scenes, tmp_path / "broken", *flags))


def test_a_run_killed_after_its_last_checkpoint_takes_no_further_step(scenes, tmp_path):
    flags = ["--stages", "baseline", "--load_best_model_at_end", "False", "--save_total_limit", "9"]
    whole = run(scenes, tmp_path, *flags)
    (tmp_path / "baseline" / "finished.json").unlink()
    assert equal(whole, run(scenes, tmp_path, *flags, "--resume_from_checkpoint", "true"))
    assert not (tmp_path / "baseline" / "checkpoint-5").exists()


def test_one_checkpoint_cannot_resume_both_stages(both_stages, scenes, tmp_path):
    checkpoint = next((both_stages[0] / "pretrain").glob("checkpoint-*"))
    with pytest.raises(ValueError, match="cannot be of both pretrain and finetune"):
        run(scenes, tmp_path, "--resume_from_checkpoint", str(checkpoint))
    assert not (tmp_path / "pretrain").exists()


def test_a_stage_one_model_that_would_not_be_used_is_refused(both_stages, scenes, tmp_path):
    with pytest.raises(ValueError, match="starts with pretrain.*--stages finetune"):
        run(scenes, tmp_path, "--stage1_model", str(both_stages[0] / "pretrain" / "best"))


def test_the_hand_over_is_checked(both_stages, scenes, tmp_path):
    out, _ = both_stages
    with pytest.raises(ValueError, match="--stage1_model"):
        run(scenes, tmp_path, "--stages", "finetune")
    with pytest.raises(ValueError, match="not a stage-1 model"):
        run(scenes, tmp_path, "--stages", "finetune", "--stage1_model", str(out / "hub"))
    with pytest.raises(ValueError, match="projection_dim 16, this stage 32"):
        flags = ("--stages", "finetune", "--stage1_model", str(out / "pretrain" / "best"), "--projection_dim", "32")
        run(scenes, tmp_path, *flags)
    with pytest.raises(ValueError, match="image_size 32, this stage 64"):
        flags = ("--stages", "finetune", "--stage1_model", str(out / "pretrain" / "best"), "--image_size", "64")
        run(scenes, tmp_path, *flags)


@pytest.mark.parametrize("align", ["hinge", "infonce"])
def test_a_resumed_run_is_bitwise_the_unbroken_one(scenes, tmp_path, align):
    """Mid-epoch, with dropout, augmentation, a learned temperature, and a tower that the stock Trainer would lose."""
    flags = ["--stages", "baseline", "--text_dropout", "0.2", "--size_augmentation", "0.2", "--align", align]
    flags += ["--load_best_model_at_end", "False", "--save_total_limit", "9", "--max_steps", "6"]
    whole = run(scenes, tmp_path / "whole", *flags)
    run(scenes, tmp_path / "broken", *flags)
    (tmp_path / "broken" / "baseline" / "finished.json").unlink()
    for late in ("checkpoint-4", "checkpoint-6"):
        shutil.rmtree(tmp_path / "broken" / "baseline" / late)
    resumed = run(scenes, tmp_path / "broken", *flags, "--resume_from_checkpoint", "true")
    assert equal(whole, resumed)
    states = [tmp_path / name / "baseline" / "checkpoint-6" / "objective.safetensors" for name in ("whole", "broken")]
    if align == "infonce":
        first, second = (load_file(path)["align.temperature"] for path in states)
        assert torch.equal(first, second) and first.item() != pytest.approx(0.07, abs=1e-7)
        states[1].unlink()
        (tmp_path / "broken" / "baseline" / "finished.json").unlink()
        with pytest.raises(ValueError, match="objective.safetensors is missing"):
            run(scenes, tmp_path / "broken", *flags, "--resume_from_checkpoint", "true")
    assert not (tmp_path / "whole" / "hub" / "objective.safetensors").exists()


def test_the_best_model_is_whole_after_training(scenes, tmp_path):
    hub = run(scenes, tmp_path, "--stages", "baseline")
    best = next((tmp_path / "baseline").glob("checkpoint-*"))
    assert equal(hub, load_file(best / "model.safetensors"))


def test_a_checkpoint_that_lacks_a_weight_is_refused(both_stages, tmp_path):
    from safetensors.torch import save_file

    out, weights = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    model.save_pretrained(tmp_path)
    kept = {key: value for key, value in weights.items() if key != "text_norm.weight"}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="text_norm.weight"):
        load_whole(str(tmp_path), model)


@pytest.mark.parametrize("cached", ["vision", "text", "both"])
def test_caches_of_frozen_towers_change_nothing_but_rounding(scenes, tmp_path, cached):
    flags = ["--stages", "baseline", "--freeze_vision", "True", "--freeze_text", "True"]
    flags += ["--image_augmentation", "none", "--text_augmentation", "0", "--load_best_model_at_end", "False"]
    plain = run(scenes, tmp_path / "plain", *flags)
    kinds = ["vision", "text"] if cached == "both" else [cached]
    cachings = [word for kind in kinds for word in (f"--cache_{kind}", "True")]
    quick = run(scenes, tmp_path / "quick", *flags, *cachings)
    for key in plain:
        assert torch.allclose(plain[key].float(), quick[key].float(), atol=5e-3), key


def test_caches_are_filled_on_the_device_of_the_training(make_tiny_model, scenes, tmp_path, monkeypatch):
    parsed, _ = parse_stages([*scenes, *SMALL, "--output_dir", str(tmp_path)], STAGES, D2S_ARGUMENTS)
    args = StageArguments("baseline", *parsed["baseline"])
    args.model.freeze_vision = args.training.cache_vision = True
    monkeypatch.setattr(type(args.training), "device", torch.device("meta"))
    monkeypatch.setattr(pair_stage, "cache_images", lambda model, *inputs: model.device)
    found, evaluated = pair_stage.build_caches(make_tiny_model(), None, None, None, args, "captions")
    assert {found.vision, evaluated.vision} == {torch.device("meta")}


def test_a_teacher_column_that_the_data_brings_is_used_or_refused_by_its_width(scenes, both_stages, tmp_path):
    teacher = D2SVSEModel.from_pretrained(both_stages[0] / "pretrain" / "best")
    processor = D2SVSEProcessor.from_pretrained(both_stages[0] / "pretrain" / "best")
    parsed, _ = parse_stages([*scenes, *SMALL, "--output_dir", str(tmp_path)], STAGES, D2S_ARGUMENTS)
    args = StageArguments("finetune", *parsed["finetune"])
    rows = prepare_rows(args.data, "train", None, need_dense=True)
    own = [[0.5] * 16] * len(rows)
    kept = add_dense_text_embeds(rows.add_column("dense_text_embeds", own), teacher, processor, "cpu")
    assert kept["dense_text_embeds"][:2] == own[:2]
    made = add_dense_text_embeds(rows, teacher, processor, "cpu")
    with torch.no_grad():
        expected = teacher.eval().get_text_features(**processor(text=rows["dense_text"][3], return_tensors="pt"))
    assert torch.allclose(torch.tensor(made["dense_text_embeds"][3]), expected.pooler_output[0], atol=1e-5)
    with pytest.raises(ValueError, match="vectors of 4 numbers"):
        add_dense_text_embeds(rows.add_column("dense_text_embeds", [[1.0] * 4] * len(rows)), teacher, processor, "cpu")


def test_a_trained_tower_cannot_be_cached(scenes, tmp_path):
    with pytest.raises(ValueError, match="--freeze_vision"):
        run(scenes, tmp_path, "--cache_vision", "True")


def test_the_online_teacher_and_text_augmentation_train(scenes, tmp_path):
    run(scenes, tmp_path, "--dense_teacher", "online", "--text_augmentation", "0.3", "--max_steps", "2")


def test_lora_trains_adapters_and_leaves_a_plain_merged_model(scenes, tmp_path):
    weights = run(scenes, tmp_path, "--stages", "baseline", "--lora", "True", "--lora_rank", "2")
    assert not [key for key in weights if "lora" in key or "base_layer" in key or "modules_to_save" in key]
    assert AutoModel.from_pretrained(tmp_path / "hub").encode_text(["a red circle"]).shape == (1, 16)


@pytest.mark.parametrize("flag", ["--bf16", "--gradient_checkpointing"])
def test_bf16_and_gradient_checkpointing_run(scenes, tmp_path, flag):
    run(scenes, tmp_path, "--stages", "baseline", flag, "True", "--max_steps", "2")


def trainer_of(scenes, out, model=None, **kwargs):
    """A trainer on the first rows, by hand."""
    from vsehub.training.arguments import RetrievalTrainingArguments

    rows = prepare_rows(DataArguments(data=scenes[1]), "train", str(out), need_dense=True)
    processor = D2SVSEProcessor.from_vision_text_pretrained(None, scenes[5], 32)
    model = model or D2SVSEModel.from_vision_text_pretrained(
        scenes[3], scenes[5], projection_dim=16, use_decoder=False, image_size=32
    )
    args = RetrievalTrainingArguments(
        output_dir=str(out), max_steps=2, per_device_train_batch_size=8, use_cpu=True, eval_strategy="no",
        save_strategy="no", load_best_model_at_end=False, **kwargs,
    )  # fmt: skip
    return RetrievalTrainer(
        model=model,
        args=args,
        objective=D2SObjective(),
        processor=processor,
        train_dataset=PairDataset(rows, processor),
        data_collator=PairCollator(processor),
        eval_rows=rows,
    )


def test_a_nan_loss_names_the_step_and_the_remedy(scenes, tmp_path):
    trainer = trainer_of(scenes, tmp_path)
    trainer.model.text_norm.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 0.*Lower the learning rate"):
        trainer.train()


def test_the_online_teacher_computes_in_the_precision_of_the_student(scenes, tmp_path, monkeypatch):
    seen = set()

    def spy(*inputs, **kwargs):
        seen.add(torch.is_autocast_enabled("cpu"))
        return teach(*inputs, **kwargs)

    monkeypatch.setattr(trainer_module, "teach", spy)
    run(scenes, tmp_path, "--dense_teacher", "online", "--max_steps", "2", "--bf16", "True")
    assert seen == {True}


@pytest.mark.parametrize("legacy", [True, False])
def test_only_a_legacy_teacher_follows_the_student_into_train_mode(tiny_model, legacy):
    teacher = copy.deepcopy(tiny_model).eval().requires_grad_(False)
    teacher.config.legacy = legacy
    teach(teacher, torch.tensor([[2, 5, 3]]), torch.ones(1, 3, dtype=torch.long), training=True)
    assert {module.training for module in teacher.text_model.modules()} == {legacy} == {teacher.text_head.training}


def test_learning_rates_follow_the_groups_and_the_paper_schedule(scenes, tmp_path):
    rates = {"learning_rate": 1e-3, "tower_lr_scale": 0.1, "lr_milestones": [1.0, 1.5]}
    trainer = trainer_of(scenes, tmp_path, num_train_epochs=30, **rates)  # max_steps wins over the epochs
    trainer.create_optimizer_and_scheduler(num_training_steps=20)  # 6 steps are an epoch
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([1e-3, 1e-4])
    rates = []
    for _ in range(20):
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
    assert rates == pytest.approx([1e-3] * 6 + [3e-4] * 3 + [9e-5] * 11)


def test_milestones_are_the_whole_schedule(scenes, tmp_path):
    with pytest.raises(ValueError, match="--lr_milestones.*leave --warmup_steps"):
        run(scenes, tmp_path, "--lr_milestones", "1", "--warmup_steps", "5")


def test_too_little_data_for_one_batch_is_refused(scenes, tmp_path):
    with pytest.raises(ValueError, match="do not fill one batch of 512"):
        run(scenes, tmp_path, "--per_device_train_batch_size", "512")


def test_evaluation_equals_the_model_used_by_hand(both_stages, scenes, tmp_path):
    from vsehub.evaluation.ranking import image_text_metrics
    from vsehub.processing.pixels import open_image

    out, _ = both_stages
    data = DataArguments(data=scenes[1])
    rows = prepare_rows(data, "test", str(tmp_path), need_dense=False)
    model = AutoModel.from_pretrained(out / "hub")
    images = model.encode_image([open_image(row["image"]["bytes"]) for row in rows])
    texts = model.encode_text([text for row in rows for text in row["captions"]])
    owner = [index for index, row in enumerate(rows) for _ in row["captions"]]
    plain, found = image_text_metrics(images, texts, owner), evaluate_model(str(out / "hub"), data, "test")
    assert {key: found[key] for key in plain} == pytest.approx(plain)
    assert found["duplicate_aware_mean_recall"] > found["mean_recall"]  # scenes share captions
    flags = ["--json", str(tmp_path / "m.json"), "--graded", "captions"]
    assert evaluate_main([str(out / "hub"), "--data", scenes[1], *flags]) == 0
    written = json.loads((tmp_path / "m.json").read_text())
    assert "rsum" in written and 0 < written["text_to_text_ndcg@10"] <= 100


def test_a_plain_trainer_trains_the_model(tiny_model, tiny_image_batch, tiny_text_batch, tmp_path):
    items = [
        {**{k: v[i] for k, v in tiny_text_batch.items()}, "pixel_values": tiny_image_batch["pixel_values"][i]}
        for i in range(6)
    ]

    def collate(rows):
        return {**{key: torch.stack([row[key] for row in rows]) for key in rows[0]}, "return_loss": True}

    args = TrainingArguments(
        str(tmp_path), max_steps=3, learning_rate=1e-2, use_cpu=True, per_device_train_batch_size=6,
        save_strategy="no", remove_unused_columns=False,
    )  # fmt: skip
    trainer = Trainer(tiny_model, args, train_dataset=items, data_collator=collate)
    before = trainer.evaluate(items)["eval_loss"]
    trainer.train()
    assert trainer.evaluate(items)["eval_loss"] < before


def test_two_processes_train_as_one(scenes, tmp_path):
    """gloo, global negatives, masked batch-norm over the global batch: the same weights to rounding."""
    script = Path(run_d2s.__file__)
    flags = ["--stages", "baseline", "--max_steps", "3", "--learning_rate", "0.01", "--image_augmentation", "none"]
    flags += ["--text_augmentation", "0", "--load_best_model_at_end", "False", "--ramp_epochs", "0"]
    flags += [
        "--optim",
        "sgd",
    ]  # Adam blows rounding up to a full step where the true gradient is 0 (bias before a norm)
    one = run(scenes, tmp_path / "one", *flags)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0"]
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path / "two"), *flags, "--per_device_train_batch_size", "4"]
    subprocess.run([*command, str(script), *words], check=True, capture_output=True, timeout=300)
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


@pytest.mark.slow
def test_two_processes_train_adapters_as_one(scenes, tmp_path):
    """LoRA under gloo: the merged weights of both agree to rounding."""
    flags = ["--stages", "baseline", "--max_steps", "3", "--learning_rate", "0.01", "--image_augmentation", "none"]
    flags += ["--text_augmentation", "0", "--load_best_model_at_end", "False", "--ramp_epochs", "0", "--optim", "sgd"]
    flags += ["--lora", "True", "--lora_rank", "2"]
    one = run(scenes, tmp_path / "one", *flags)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "0"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "127.0.0.1:0", run_d2s.__file__]
    words = [*scenes, *SMALL, "--output_dir", str(tmp_path / "two"), *flags, "--per_device_train_batch_size", "4"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    two = load_file(tmp_path / "two" / "hub" / "model.safetensors")
    assert max((one[key].float() - two[key].float()).abs().max().item() for key in one) < 2e-5


def test_one_process_with_several_gpus_is_sent_to_the_launcher(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="accelerate launch"):
        run(scenes, tmp_path)
