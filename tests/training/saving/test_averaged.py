"""What counts is an average of the weights: in evaluation, in checkpoints, at the end; training goes on without it."""

import json
import shutil
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_runs import SMALL, equal, run, run_pir
from torch import nn
from transformers import TrainerCallback
from two_processes import difference, logged, run_two

from vsehub import D2SVSEModel
from vsehub.__main__ import main
from vsehub.training import pair_stage
from vsehub.training.processes.fsdp import ShardedTrainer
from vsehub.training.saving import checkpoints
from vsehub.training.saving.averaged import AveragedTrainer, moving, write

FLAGS = """--stages baseline --load_best_model_at_end False --save_total_limit 9 --align infonce --learning_rate 0.01
--lr_scheduler_type constant --freeze_vision_batch_norm False""".split()
AVERAGE = ["--average_weights", "0.6"]


class Watch(TrainerCallback):
    """Keeps the weights of each step, and those that an evaluation saw."""

    def __init__(self):
        self.steps = []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.steps.append({name: tensor.clone() for name, tensor in moving(model)})


def after(out) -> list[str]:
    """To go on from the second step of a run."""
    return ["--resume_from_checkpoint", str(out / "baseline" / "checkpoint-2")]


def watched(monkeypatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(pair_stage, "RetrievalTrainer", partial(pair_stage.RetrievalTrainer, callbacks=[watch]))
    return watch


@pytest.fixture(scope="module")
def averaged(scenes, tmp_path_factory):
    """Folder of a run whose weights are averaged, what it published, and the weights of each of its steps."""
    out = tmp_path_factory.mktemp("averaged")
    with pytest.MonkeyPatch.context() as patch:
        watch = watched(patch)
        return out, run(scenes, out, *FLAGS, *AVERAGE), watch.steps


def test_what_is_saved_is_the_average_by_its_definition(averaged):
    out, published, steps = averaged
    assert len(steps) == 4 and any("running_mean" in name for name in steps[0])
    expected = {name: tensor.double() for name, tensor in steps[0].items()}
    for number, weights in enumerate(steps[1:], 2):
        kept = min(0.6, 1 - 1 / number)
        expected = {name: kept * expected[name] + (1 - kept) * weights[name].double() for name in expected}
        if number in (2, 4):
            saved = D2SVSEModel.from_pretrained(out / "baseline" / f"checkpoint-{number}").state_dict()
            assert all(torch.allclose(saved[name].double(), expected[name], atol=1e-6) for name in expected)
    saved = D2SVSEModel.from_pretrained(out / "hub").state_dict()
    assert all(torch.allclose(saved[name].double(), expected[name], atol=1e-6) for name in expected)
    assert any((saved[name] - steps[-1][name]).abs().max() > 1e-3 for name in expected)


def test_training_itself_goes_on_as_without_an_average(averaged, scenes, tmp_path, monkeypatch):
    watch = watched(monkeypatch)
    run(scenes, tmp_path, *FLAGS)
    assert all(equal(one, other) for one, other in zip(averaged[2], watch.steps, strict=True))
    assert logged(tmp_path / "baseline") == logged(averaged[0] / "baseline")


def test_an_evaluation_is_of_the_average_and_the_best_of_them_is_published(averaged, scenes, tmp_path, monkeypatch):
    seen, evaluate = [], ShardedTrainer.evaluate

    def spy(self, *args, **kwargs):
        seen.append({name: tensor.clone() for name, tensor in moving(self.model)})
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(ShardedTrainer, "evaluate", spy)
    published = run(scenes, tmp_path, *FLAGS, *AVERAGE, "--load_best_model_at_end", "True", "--save_total_limit", "9")
    stage = tmp_path / "baseline"
    for saved, weights in zip(sorted(stage.glob("checkpoint-*")), seen):
        model = D2SVSEModel.from_pretrained(saved).state_dict()
        assert all(torch.equal(model[name], weights[name]) for name in weights)
    best = json.loads((stage / "checkpoint-4" / "trainer_state.json").read_text())["best_model_checkpoint"]
    assert equal(published, load_file(f"{best}/model.safetensors"))


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param([], marks=pytest.mark.slow),
        ["--gradient_accumulation_steps", "2", "--image_augmentation", "crop"],
    ],
)
def test_a_run_that_goes_on_is_bitwise_the_same(scenes, tmp_path, extra):
    flags = [*FLAGS, *AVERAGE, "--text_dropout", "0.2", *extra]
    through = run(scenes, tmp_path / "through", *flags)
    again = tmp_path / "again"
    run(scenes, again, *flags, "--max_steps", "2")
    assert equal(through, run(scenes, again, *flags, *after(again)))
    parts = [tmp_path / name / "baseline/checkpoint-4/last_weights.safetensors" for name in ("through", "again")]
    assert equal(*map(load_file, parts))


def test_a_run_that_has_all_its_steps_is_loaded_as_it_was(averaged, scenes, tmp_path):
    shutil.copytree(averaged[0] / "baseline", tmp_path / "baseline")
    (tmp_path / "baseline" / "finished.json").unlink()
    assert equal(averaged[1], run(scenes, tmp_path, *FLAGS, *AVERAGE, "--resume_from_checkpoint", "true"))


@pytest.mark.slow
def test_all_stages_of_both_systems_have_averages(scenes, overhead, tmp_path):
    run(scenes, tmp_path / "d2s", "--stages", "pretrain", "finetune", *AVERAGE)
    run_pir(overhead, tmp_path / "pir", *AVERAGE)
    for stage in ("d2s/pretrain", "d2s/finetune", "pir/prior", "pir/retrieval"):
        (newest, *_) = reversed(checkpoints.checkpoints_of(tmp_path / stage))
        assert "last_weights.safetensors" in json.loads((newest / "sealed.json").read_text())["files"]
    told = "a moving average of the weights (0.6)"
    assert all(told in (tmp_path / name / "hub/README.md").read_text() for name in ("d2s", "pir"))


def test_adapters_are_averaged(scenes, tmp_path, monkeypatch):
    watch = watched(monkeypatch)
    run(scenes, tmp_path, *FLAGS[:-2], *AVERAGE, "--lora", "True", "--lora_rank", "2")
    name = next(name for name in watch.steps[0] if "lora_B" in name)
    first, second = (watch.steps[step][name] for step in (0, 1))
    saved = load_file(tmp_path / "baseline/checkpoint-2/adapter_model.safetensors")
    assert torch.allclose(saved[name.replace(".default", "")], (first + second) / 2, atol=1e-7)


def test_a_checkpoint_with_an_average_and_one_without_do_not_go_on_as_each_other(averaged, scenes, tmp_path, capsys):
    words = ["train", *scenes, *SMALL, *FLAGS, "--resume_from_checkpoint", "true", "--max_steps", "6"]
    shutil.copytree(averaged[0] / "baseline", tmp_path / "with" / "baseline")
    assert main([*words, "--output_dir", str(tmp_path / "with")]) == 2
    assert "--average_weights was 0.6, and is None" in capsys.readouterr().err

    def of_an_earlier_version(*names):  # nobody compares the settings then
        for path in (tmp_path / "with").rglob("*"):
            if path.name in ("settings.json", "sealed.json", "finished.json", *names):
                path.unlink()

    of_an_earlier_version()
    assert main([*words, "--output_dir", str(tmp_path / "with")]) == 2
    assert "was written with --average_weights: add it" in capsys.readouterr().err
    of_an_earlier_version("last_weights.safetensors")
    assert main([*words, *AVERAGE, "--output_dir", str(tmp_path / "with")]) == 2
    assert "was written without --average_weights: leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "1", "-0.5", "nan", "much"])
def test_a_decay_that_is_none_is_refused(scenes, tmp_path, capsys, value):
    assert main(["train", *scenes, *SMALL, *FLAGS, "--average_weights", value, "--output_dir", str(tmp_path)]) == 2
    assert "--average_weights" in capsys.readouterr().err


def test_an_error_in_an_evaluation_leaves_the_weights_of_the_last_step():
    model = nn.Linear(2, 2)
    trainer = object.__new__(AveragedTrainer)
    trainer.model, trainer.args = model, SimpleNamespace(world_size=1, average_weights=0.5)
    before = model.weight.detach().clone()
    trainer.average = {name: tensor + 1 for name, tensor in moving(model)}
    with pytest.raises(RuntimeError), trainer._averaged():
        assert torch.equal(model.weight, before + 1)
        raise RuntimeError
    assert torch.equal(model.weight, before)


def test_weights_of_another_model_are_refused_and_nothing_is_written():
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    for wrong in ({"weight": torch.ones(2, 2)}, {"weight": torch.ones(3, 2), "bias": torch.ones(2)}):
        with pytest.raises(ValueError, match="not the weights of this model: (bias|weight)"):
            write(model, wrong)
    assert torch.equal(model.weight, before)


@pytest.mark.slow
def test_two_processes_and_shards_average_as_one(scenes, tmp_path):
    flags = ["--stages", "baseline", "--optim", "sgd", *AVERAGE, "--load_best_model_at_end", "False"]
    whole = run_two(scenes, tmp_path / "whole", *flags)
    parts = run_two(scenes, tmp_path / "parts", *flags, "--fsdp")
    assert difference(whole, parts) < 1e-6
    for name, shards in (("whole", []), ("parts", ["--fsdp"])):
        out = tmp_path / f"{name} again"
        run_two(scenes, out, *flags, *shards, "--max_steps", "2")
        resumed = run_two(scenes, out, *flags, *shards, *after(out))
        assert equal(resumed, whole if name == "whole" else parts)
