"""bfloat16 is near float32, folded batch norms change nothing, and a model is left as it was."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import MobileNetV2Config, MobileNetV2Model, RegNetConfig, RegNetModel, ResNetConfig, ResNetModel

from vsehub.processing.half_precision import computing_in, folded_norms, resolved_dtype

SMALL = {"hidden_sizes": [8, 16], "depths": [1, 1], "embedding_size": 8, "layer_type": "basic"}
TOWERS = {
    "resnet": lambda: ResNetModel(ResNetConfig(**SMALL)),
    "mobilenet": lambda: MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25, min_depth=4)),
    "regnet": lambda: RegNetModel(RegNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, groups_width=8)),
}


@pytest.fixture(params=TOWERS)
def tower(request):
    """A convolutional tower whose batch norms have seen data."""
    torch.manual_seed(0)
    tower = TOWERS[request.param]().train()
    for _ in range(3):
        tower(pixel_values=torch.randn(4, 3, 64, 64))
    return tower.eval()


def norms(model) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]


@torch.no_grad()
def test_folded_norms_change_nothing_but_rounding_and_are_given_back(tower):
    pixels = torch.randn(2, 3, 64, 64)
    plain, before = tower(pixel_values=pixels).last_hidden_state, norms(tower)
    with folded_norms(tower):
        assert before and not norms(tower)
        folded = tower(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(folded, plain, atol=1e-4, rtol=1e-4)
    assert list(map(id, norms(tower))) == list(map(id, before))
    assert torch.equal(tower(pixel_values=pixels).last_hidden_state, plain)


def test_a_model_is_given_back_after_an_error(tower):
    before = norms(tower)
    with pytest.raises(KeyError), folded_norms(tower):
        raise KeyError
    assert norms(tower) == before


def test_a_norm_that_follows_its_batch_stays(tower):
    with folded_norms(tower.train()):
        assert norms(tower)


@torch.no_grad()
def test_float32_is_the_model_as_it_is(tower):
    pixels = torch.randn(2, 3, 64, 64)
    plain = tower(pixel_values=pixels).last_hidden_state
    with computing_in("float32", tower, "cpu"):
        assert torch.equal(tower(pixel_values=pixels).last_hidden_state, plain)


@pytest.mark.parametrize("name", ["tiny_model", "make_tiny_pir_model"])
def test_vectors_in_bfloat16_are_near(name, request, tiny_tokenizer):
    made = request.getfixturevalue(name)
    model = made if isinstance(made, nn.Module) else made()
    pixels, words = torch.randn(8, 3, 32, 32), dict(tiny_tokenizer(["a dog", "a boat"], return_tensors="pt"))
    with torch.no_grad():
        exact = model(pixel_values=pixels).image_embeds, model(**words).text_embeds
        with computing_in("bfloat16", model, "cpu"):
            fast = model(pixel_values=pixels).image_embeds.float(), model(**words).text_embeds.float()
    for one, other in zip(exact, fast):
        cosines = F.cosine_similarity(one, other)
        assert cosines.min() > 0.98 and not torch.equal(one, other)


def test_another_type_is_refused_and_not_taken_for_float32():
    with pytest.raises(ValueError, match="one of auto, float32, bfloat16, not 'half'"):
        resolved_dtype("half", torch.device("cpu"))


def test_a_type_that_was_named_is_taken_and_auto_is_one_of_both():
    assert resolved_dtype("bfloat16", torch.device("cpu")) == "bfloat16"
    assert resolved_dtype("auto", torch.device("cpu")) in ("float32", "bfloat16")
    assert resolved_dtype("auto", torch.device("meta")) == "float32"
