"""Sharded training (FSDP2) gives what whole weights give: vectors, losses, weights, resumed runs."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from small_runs import PIR_SMALL, equal, run
from torch import distributed
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import Trainer
from two_processes import D2S, FLAGS, TWO, difference, logged, run_two, two

from vsehub import D2SVSEModel, PIRModel
from vsehub.training import run_pir
from vsehub.training.processes.fsdp import (
    METHODS,
    ShardedTrainer,
    blocks_of,
    load_parts,
    load_whole_state,
    parts_of,
    shard_method,
    unsharded,
    whole_state,
    without_weights,
)

SGD = ["--optim", "sgd"]  # Adam blows rounding up to a full step where the true gradient is 0 (bias before a norm)
LEARNED = ["--align", "infonce", "--temperature", "0.07", "--objective_lr", "0.01"]

IN_TWO = """
import sys
import torch
from torch import distributed
from vsehub import D2SVSEModel, PIRModel

sys.path[:0] = sys.argv[1:3]
from test_fsdp import sharded, vectors

distributed.init_process_group("gloo")
pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
ids = torch.randint(5, 30, (3, 7), generator=torch.Generator().manual_seed(1))
for kind, folder in zip((D2SVSEModel, PIRModel), sys.argv[3:]):
    whole = vectors(kind.from_pretrained(folder).eval(), pixels, ids)
    parts = vectors(sharded(kind.from_pretrained(folder).eval()), pixels, ids)
    for name in whole:
        error = (whole[name] - parts[name]).abs().max()
        distributed.all_reduce(error, distributed.ReduceOp.MAX)
        if distributed.get_rank() == 0:
            print(kind.__name__, name, error.item(), flush=True)
distributed.destroy_process_group()
"""


def loaded(kind, folder) -> dict[str, torch.Tensor]:
    """The weights of a published model, all of which are there."""
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.state_dict()


@pytest.fixture
def alone(tmp_path):
    """A group of one process, which shards all the same."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def sharded(model, reshard=None):
    """A model, sharded by torch as accelerate does it."""
    names = blocks_of(model)
    assert names
    for module in list(model.modules()):
        if type(module).__name__ in names:
            fully_shard(module)
    fully_shard(model, reshard_after_forward=reshard)
    for name in METHODS:
        shard_method(model, name)
    return model


def vectors(model, pixels, ids) -> dict[str, torch.Tensor]:
    """What each entry point gives; gathered weights are dropped before each."""
    mask = torch.ones_like(ids)
    calls = {
        "images": lambda: model.get_image_features(pixels).pooler_output,
        "texts": lambda: model.get_text_features(ids, attention_mask=mask).pooler_output,
        "tokens": lambda: model.vision_tokens(pixels),
        "forward": lambda: model(input_ids=ids, attention_mask=mask, pixel_values=pixels).image_embeds,
    }
    if getattr(model, "instruction_model", None) is not None:
        calls["scene"] = lambda: model.instruct(pixels)
    results = {}
    for name, call in calls.items():
        if hasattr(model, "reshard"):
            model.reshard()
        with torch.no_grad():
            results[name] = call()
    return results


@pytest.fixture
def pixels():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def ids():
    return torch.randint(5, 30, (3, 7), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("reshard", [None, True])
def test_each_entry_point_gathers_its_weights(alone, tiny_model, make_tiny_pir_model, pixels, ids, reshard):
    for model in (tiny_model, make_tiny_pir_model().eval()):
        whole = vectors(model, pixels, ids)
        assert all(isinstance(parameter, DTensor) for parameter in sharded(model, reshard).parameters())
        parts = vectors(model, pixels, ids)
        assert all(torch.allclose(parts[name], whole[name], atol=1e-6) for name in whole)


def test_a_model_without_shards_is_left_as_it_is(tiny_model):
    shard_method(tiny_model, "get_text_features")
    assert "get_text_features" not in vars(tiny_model)
    with unsharded(tiny_model):
        pass


def test_weights_come_back_whole_and_where_they_were(alone, tiny_model, pixels, ids):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    skeleton = without_weights(tiny_model)
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}
    whole = vectors(tiny_model, pixels, ids)
    sharded(tiny_model)
    with unsharded(tiny_model):
        assert not any(isinstance(parameter, DTensor) for parameter in tiny_model.parameters())
        assert torch.equal(tiny_model(pixel_values=pixels).image_embeds, whole["forward"])
    assert all(isinstance(parameter, DTensor) for parameter in tiny_model.parameters())
    skeleton.load_state_dict(whole_state(tiny_model), assign=True)
    assert equal(skeleton.state_dict(), before)
    other = {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in before.items()}
    load_whole_state(tiny_model, other)
    assert equal(whole_state(tiny_model, on_first=True), other)
    del other["text_head.fc1.weight"]
    with pytest.raises(ValueError, match="text_head.fc1.weight"):
        load_whole_state(tiny_model, other)


def test_parts_of_an_optimizer_are_plain_and_load_again(alone, tiny_model, pixels, ids):
    sharded(tiny_model)
    temperature = torch.nn.Parameter(torch.ones(1))
    parameters = [*tiny_model.parameters(), temperature]
    optimizer, other = (torch.optim.AdamW(parameters, lr=0.0) for _ in range(2))
    (tiny_model(pixel_values=pixels).image_embeds.sum() * temperature).backward()
    optimizer.step()
    saved = parts_of(optimizer.state_dict())
    tensors = [value for entry in saved["state"].values() for value in entry.values()]
    assert tensors and not any(isinstance(value, DTensor) for value in tensors)
    load_parts(other, saved)
    again = parts_of(other.state_dict())
    assert all(equal(saved["state"][number], again["state"][number]) for number in saved["state"])
    other.step()


def made(**attributes) -> ShardedTrainer:
    """A trainer with nothing but these attributes."""
    trainer = object.__new__(ShardedTrainer)
    for name, value in attributes.items():
        setattr(trainer, name, value)
    return trainer


def test_a_run_that_accelerate_would_not_shard_is_refused(monkeypatch):
    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", lambda self: None)
    state = SimpleNamespace(distributed_type="MULTI_GPU", fsdp_plugin=None)
    args = SimpleNamespace(fsdp=True, device=torch.device("cuda"))
    trainer = made(args=args, accelerator=SimpleNamespace(state=state, is_fsdp2=False), is_fsdp_enabled=False)
    with pytest.raises(ValueError, match="--fsdp: accelerate would not shard, but train with MULTI_GPU"):
        trainer.create_accelerator_and_postprocess()


def test_a_checkpoint_with_shards_and_one_without_do_not_go_on_as_each_other(tmp_path, tiny_model):
    with pytest.raises(ValueError, match="was written without --fsdp: leave it out"):
        made(whole=tiny_model)._load_optimizer_and_scheduler(tmp_path)
    (tmp_path / "optimizer_0_of_2.pt").touch()
    with pytest.raises(ValueError, match="was written with --fsdp: add it"):
        made()._load_optimizer_and_scheduler(tmp_path)


@pytest.mark.slow
def test_structure_with_a_bank_and_shards(taught, tmp_path):
    """Learned projections and a bank, which are of the objective."""
    flags = [*SGD, "--stages", "baseline", "--structure_weight", "1", "--structure_bank", "32", "--align", "infonce"]
    flags += ["--freeze_vision_batch_norm", "False"]  # statistics of the first process
    whole = run_two(taught[1], tmp_path / "whole", *flags, "--imagenet_normalisation", "True")
    parts = run_two(taught[1], tmp_path / "parts", *flags, "--imagenet_normalisation", "True", "--fsdp")
    assert difference(whole, parts) < 1e-6


@pytest.mark.slow
def test_two_processes_embed_as_one(tiny_folder, pir_folder, tmp_path):
    (tmp_path / "embed.py").write_text(IN_TWO)
    here = Path(__file__).parent
    folders = map(str, (here, here.parents[1] / "helpers", tiny_folder, pir_folder))
    lines = [line.split() for line in two(str(tmp_path / "embed.py"), *folders).stdout.splitlines()]
    assert len(lines) == 4 + 5 and all(float(error) < 1e-6 for _, _, error in lines)


@pytest.mark.slow
def test_one_process_two_and_two_with_shards_train_the_same(scenes, tmp_path):
    """With a learned temperature, which is no weight of the model, and gradient accumulation."""
    flags = ["--stages", "baseline", *SGD, *LEARNED, "--gradient_accumulation_steps", "2"]
    one = run(scenes, tmp_path / "one", *D2S, *FLAGS, *flags, "--per_device_train_batch_size", "8")
    whole, parts = run_two(scenes, tmp_path / "whole", *flags), run_two(scenes, tmp_path / "parts", *flags, "--fsdp")
    assert difference(one, whole) < 1e-6 and difference(whole, parts) < 1e-6
    stages = [tmp_path / name / "baseline" for name in ("one", "whole", "parts")]
    for key in ("loss", "grad_norm", "eval_rsum"):
        first, *others = (logged(stage, key) for stage in stages)
        assert all(other == pytest.approx(first, rel=1e-5) for other in others)
    temperatures = [load_file(stage / "checkpoint-4" / "objective.safetensors") for stage in stages]
    assert difference(temperatures[0], temperatures[2]) < 1e-6 and len(temperatures[0])
    for folder in ("hub", "baseline/best"):
        pair = [loaded(D2SVSEModel, tmp_path / name / folder) for name in ("whole", "parts")]
        assert difference(*pair) < 1e-6


@pytest.mark.slow
def test_a_resumed_run_with_shards_is_bitwise_the_same(scenes, tmp_path):
    flags = ["--stages", "baseline", *LEARNED, "--image_augmentation", "crop", "--fsdp"]
    through = run_two(scenes, tmp_path / "through", *flags)
    run_two(scenes, tmp_path / "again", *flags, "--max_steps", "2")
    resume = ["--resume_from_checkpoint", str(tmp_path / "again/baseline/checkpoint-2")]
    again = run_two(scenes, tmp_path / "again", *flags, *resume)
    assert equal(through, again)
    runs = [tmp_path / name / "baseline" for name in ("through", "again")]
    assert logged(runs[0]) == logged(runs[1])
    for part in ("optimizer_0_of_2.pt", "optimizer_1_of_2.pt"):
        first, second = (torch.load(run / "checkpoint-4" / part, weights_only=True)["state"] for run in runs)
        assert first.keys() == second.keys() and all(equal(first[number], second[number]) for number in first)
    words = [*scenes, *D2S, *FLAGS, *flags[:-1], "--output_dir", str(tmp_path / "again"), *resume]
    done = subprocess.run([*TWO, "-m", "vsehub", "train", "d2s", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode != 0 and "checkpoint-2 was written with --fsdp: add it" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "extra",
    [
        ["--stages", "pretrain", "finetune", "--dense_teacher", "online"],
        ["--stages", "baseline", "--lora", "True", "--lora_rank", "2"],
        ["--stages", "baseline", "--bf16", "True"],
        ["--stages", "baseline", "--freeze_vision", "True", "--cache_vision", "True"],
        ["--stages", "baseline", "--gradient_checkpointing", "True"],
    ],
    ids=["stages", "adapters", "bf16", "frozen", "checkpointing"],
)
def test_shards_go_with(scenes, tmp_path, extra):
    whole = run_two(scenes, tmp_path / "whole", *SGD, *extra)
    parts = run_two(scenes, tmp_path / "parts", *SGD, *extra, "--fsdp")
    assert difference(whole, parts) < 1e-6


@pytest.mark.slow
def test_both_stages_of_pir_with_shards(overhead, tmp_path):
    script = {"script": run_pir.__file__, "small": PIR_SMALL}
    flags = ["--learning_rate", "0.01", "--optim", "sgd"]
    whole = run_two(overhead, tmp_path / "whole", *flags, **script)
    kept = ["--fsdp", "--fsdp_config", json.dumps({"reshard_after_forward": False})]
    parts = run_two(overhead, tmp_path / "parts", *flags, *kept, **script)
    assert difference(whole, parts) < 1e-6
    pair = [loaded(PIRModel, tmp_path / name / "hub") for name in ("whole", "parts")]
    assert difference(*pair) < 1e-6
