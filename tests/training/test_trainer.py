"""RetrievalTrainer: whole and bitwise resume, the loss, the optimizer and its schedule."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import equal, run
from small_trainers import trainer_of
from transformers import AutoModel, Trainer, TrainingArguments

from vsehub.losses.objectives import D2SObjective, PairEmbeddings
from vsehub.training.saving.checkpoints import load_whole
from vsehub.training.trainer import ZERO_STEPS, RetrievalTrainer, not_finite


@pytest.mark.parametrize("align", [pytest.param("hinge", marks=pytest.mark.slow), "infonce"])
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
        with pytest.raises(ValueError, match="checkpoint-6 is not whole .objective.safetensors is missing"):
            run(scenes, tmp_path / "broken", *flags, "--resume_from_checkpoint", str(states[1].parent))
        again = run(scenes, tmp_path / "broken", *flags, "--resume_from_checkpoint", "true")
        assert equal(whole, again)  # from checkpoint-4, the newest that is whole
    assert not (tmp_path / "whole" / "hub" / "objective.safetensors").exists()


def test_the_best_model_is_whole_after_training(scenes, tmp_path):
    hub = run(scenes, tmp_path, "--stages", "baseline")
    best = next((tmp_path / "baseline").glob("checkpoint-*"))
    assert equal(hub, load_file(best / "model.safetensors"))


def test_a_checkpoint_that_lacks_a_weight_is_refused(both_stages, tmp_path):
    out, weights = both_stages
    model = AutoModel.from_pretrained(out / "hub")
    model.save_pretrained(tmp_path)
    kept = {key: value for key, value in weights.items() if key != "text_norm.weight"}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="text_norm.weight"):
        load_whole(str(tmp_path), model)


@pytest.mark.parametrize("flag", ["--bf16", "--gradient_checkpointing"])
def test_bf16_and_gradient_checkpointing_run(scenes, tmp_path, flag):
    run(scenes, tmp_path, "--stages", "baseline", flag, "True", "--max_steps", "2")


def test_a_nan_loss_names_the_step_and_the_remedy(scenes, tmp_path):
    trainer = trainer_of(scenes, tmp_path)
    trainer.model.text_norm.weight.data.fill_(float("nan"))
    with pytest.raises(
        FloatingPointError, match="step 0.*not finite of process 0, image rows.*Lower the learning rate"
    ):
        trainer.train()


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


def test_one_process_with_several_gpus_is_sent_to_the_launcher(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", 2)
    with pytest.raises(ValueError, match="accelerate launch"):
        run(scenes, tmp_path)


@pytest.mark.parametrize("damage", ["another name", "another shape"])
def test_the_state_of_another_objective_is_refused_in_one_line(scenes, tmp_path, damage):
    trainer = trainer_of(scenes, tmp_path)
    trainer.objective = D2SObjective(align="infonce")
    trainer.save_model(str(tmp_path / "checkpoint"))
    path = tmp_path / "checkpoint" / "objective.safetensors"
    name = "align.temperature" if damage == "another shape" else "contrast.temperature"
    save_file({name: torch.ones(2 if damage == "another shape" else 1)}, path)
    with pytest.raises(ValueError, match="objective.safetensors: state of another objective.*start anew") as error:
        trainer._load_from_checkpoint(str(tmp_path / "checkpoint"))
    assert len(str(error.value).splitlines()) == 1


def test_nan_is_told_with_the_process_and_the_rows_it_comes_from():
    images, texts = torch.ones(6, 4), torch.ones(6, 4)
    owners, ids = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([10, 11, 12, 13, 14, 15])
    pairs = PairEmbeddings(images, texts, texts, ids, process_ids=owners)
    assert not_finite(pairs).startswith("all embeddings are finite")
    images[4, 2], texts[5, 0] = torch.nan, torch.inf
    assert not_finite(pairs) == "embeddings are not finite of process 1, image rows [14, 15]"
    texts[0, 0] = torch.nan
    assert not_finite(pairs).endswith("of process 0, image rows [10], process 1, image rows [14, 15]")


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
