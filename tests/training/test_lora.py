"""Adapters on both towers of both models: trained, saved alone, loaded, merged."""

import re

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from vsehub.training.lora import lora_config, tower_targets


@pytest.fixture(params=["d2s", "pir"])
def fresh(request, make_tiny_model, make_tiny_pir_model):
    """A function: -> the model, always with the same weights."""
    return {"d2s": make_tiny_model, "pir": make_tiny_pir_model}[request.param]


def test_twenty_steps_saved_alone_and_merged(fresh, tiny_image_batch, tiny_text_batch, tmp_path):
    inputs = {**tiny_image_batch, **tiny_text_batch}
    model = get_peft_model(fresh(), lora_config(fresh(), rank=4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model(**inputs, return_loss=True).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    for part in ("vision_model", "text_model"):
        assert any(part in name and "lora_B" in name for name in moved)
    assert any("modules_to_save" in name for name in moved)
    assert not any("base_layer" in name for name in moved)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }
    kept = load_file(tmp_path / "adapter_model.safetensors")
    assert not any(name.startswith(("base_model.model.vision_model", "base_model.model.text_model")) and "lora" not in
                   name for name in kept)  # fmt: skip
    model.eval()
    with torch.no_grad():
        expected = model(**inputs).logits_per_image
        again = PeftModel.from_pretrained(fresh(), tmp_path).eval()
        assert torch.equal(again(**inputs).logits_per_image, expected)
        merged = again.merge_and_unload()
        assert type(merged) is type(fresh())
        assert (merged(**inputs).logits_per_image - expected).abs().max() / merged.config.logit_scale <= 1e-6


def test_a_frozen_tower_gets_no_adapters(fresh):
    model = fresh()
    model.vision_model.requires_grad_(False)
    trained = {name for name, p in get_peft_model(model, lora_config(model)).named_parameters() if p.requires_grad}
    assert any("text_model" in name for name in trained) and not any("vision_model" in name for name in trained)
    model = fresh()
    for tower in model.towers():
        tower.requires_grad_(False)
    with pytest.raises(ValueError, match="both are frozen"):
        lora_config(model)


def test_the_pattern_holds_for_the_names_of_every_version(make_tiny_model):
    pattern = tower_targets(make_tiny_model())
    for name in (
        "vision_model.encoder.layer.0.attention.attention.query",  # 5.0
        "vision_model.layers.3.attention.q_proj",  # later
        "text_model.encoder.layer.11.output.dense",
        "text_model.layers.0.mlp.fc1",
    ):
        assert re.fullmatch(pattern, name)
    for name in ("image_projection", "text_head.fc1", "mask_token_decoder.layers.0.qkv", "vision_model.layernorm"):
        assert not re.fullmatch(pattern, name)
