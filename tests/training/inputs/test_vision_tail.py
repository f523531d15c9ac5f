"""The trained end of a vision tower over cached states, against the whole tower."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_runs import run
from transformers import (
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2Config,
    MobileNetV2Config,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

from vsehub.modeling.towers import build_tower, image_tokens
from vsehub.training.inputs.vision_tail import VisionTail

SMALL = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
VIT = dict(image_size=32, patch_size=8, **SMALL)
TOWERS = {
    "vit": (ViTConfig(**VIT), "layers.2"),
    "clip": (CLIPVisionConfig(**VIT), "encoder.layers.1"),
    "dinov2": (Dinov2Config(**VIT), "encoder.layer.1"),
    "swin": (
        SwinConfig(image_size=32, patch_size=2, embed_dim=16, depths=[1, 1, 2], num_heads=[1, 2, 2], window_size=4),
        "encoder.layers.2",
    ),
    "resnet": (ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32], depths=[1, 1, 1]), "encoder.stages.1"),
    "convnext": (ConvNextConfig(hidden_sizes=[8, 16, 16, 16], depths=[1, 1, 1, 1]), "encoder.stages.2"),
    "mobilenet_v2": (MobileNetV2Config(depth_multiplier=0.35, image_size=64), "layer.13"),
}


def tower_and_tail(family):
    config, block = TOWERS[family]
    torch.manual_seed(0)
    tower = build_tower(config).eval()
    return tower, VisionTail(tower, named(tower, block), 64)


def named(tower, block):
    """The block under its name in this version of transformers (ViT: `encoder.layer` before 5.2)."""
    parent, _, place = block.rpartition(".")
    names = [name for name, module in tower.named_modules() if isinstance(module, torch.nn.ModuleList)]
    return f"{parent if parent in names else min(names, key=len)}.{place}"


@pytest.mark.parametrize("family", TOWERS)
def test_states_below_a_block_and_the_rest_of_the_tower_are_the_tower(family):
    tower, tail = tower_and_tail(family)
    tail.freeze_below()
    pixels = torch.randn(3, 3, 64, 64)
    whole = image_tokens(tower, pixels)
    whole.square().sum().backward()
    expected = {name: p.grad for name, p in tower.named_parameters() if p.requires_grad}
    assert expected and all(grad is not None for grad in expected.values())
    assert len(expected) < len(list(tower.parameters()))
    tower.zero_grad()
    states = tail.lower(pixels)
    assert states.dim() == 3
    tail.attach()
    got = image_tokens(tower, states)
    got.square().sum().backward()
    assert torch.allclose(got, whole, atol=1e-5)
    for name, parameter in tower.named_parameters():
        if parameter.requires_grad:
            scale = float(expected[name].abs().max())
            assert torch.allclose(parameter.grad, expected[name], atol=1e-5 * max(1, scale)), name
    assert torch.equal(image_tokens(tower, pixels), whole)  # pictures still go the whole way
    tail.detach()
    assert torch.equal(image_tokens(tower, pixels), whole)


@pytest.mark.parametrize("family", TOWERS)
def test_the_cached_states_depend_on_the_frozen_weights_alone(family):
    tower, tail = tower_and_tail(family)
    tail.freeze_below()
    below = tail.state_dict()
    names = {name for name, parameter in tower.named_parameters() if parameter.requires_grad}
    assert below and not names & set(below)
    pixels = torch.randn(2, 3, 64, 64)
    before = tail.lower(pixels)
    with torch.no_grad():
        for parameter in tower.parameters():
            if parameter.requires_grad:
                parameter.add_(1)
    assert torch.equal(tail.lower(pixels), before)


def test_a_block_that_is_not_there_is_named_with_those_that_are():
    tower = build_tower(TOWERS["mobilenet_v2"][0])
    for block in ("layer.99", "layers.3", "conv_stem", "layer"):
        with pytest.raises(ValueError, match=rf"--train_vision_from {block}: no such block.*layer\.0 to layer\.15"):
            VisionTail(tower, block, 64)


FLAGS = ("--image_augmentation", "none", "--cache_vision", "True", "--train_vision_from")


def test_a_run_trains_the_blocks_above_and_caches_once_for_both_stages(scenes, tmp_path):
    after = run(scenes, tmp_path, *FLAGS, "layers.1")
    assert len(list((tmp_path / "cache").glob("vision-*"))) == 2  # one a split: stage 2 reads what stage 1 cached
    before = load_file(Path(scenes[scenes.index("--vision") + 1]) / "model.safetensors")
    for name, tensor in before.items():
        if ".0." in name or "embeddings" in name:
            assert torch.equal(after[f"vision_model.{name}"], tensor), name
        elif ".1." in name and name.endswith("weight"):
            assert not torch.equal(after[f"vision_model.{name}"], tensor), name


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (("--freeze_vision", "True"), "--freeze_vision True and --train_vision_from layers.1: one freezes"),
        (("--lora", "True"), "--lora True and --train_vision_from layers.1: adapters are trained in"),
        (("--gradient_checkpointing", "True"), "--gradient_checkpointing would run the blocks"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(scenes, tmp_path, further, message):
    with pytest.raises(ValueError, match=message):
        run(scenes, tmp_path, *FLAGS, "layers.1", *further)
