"""Captions of like length together: the same embeddings and gradients as one padded batch of plain parts, less work."""

import copy

import pytest
import torch
from plain_models import plain

from vsehub.modeling.length_groups import LengthGroups

LENGTHS = torch.tensor([12, 3, 5, 30, 4, 4, 9, 7, 6, 3, 11, 8, 5, 4, 6, 10, 7, 5])


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 40, (len(LENGTHS), 30), generator=draw)
    mask = (torch.arange(30) < LENGTHS[:, None]).long()
    return {"input_ids": ids * mask, "attention_mask": mask, "pixel_values": torch.randn(18, 3, 32, 32, generator=draw)}


@pytest.fixture(params=["d2s_vse", "d2s_vse with positions", "pir", "pir without a prior", "pir, soft belief"])
def model(request, make_tiny_model, make_tiny_pir_model):
    name, _, variant = request.param.partition(" ")
    if name == "d2s_vse":
        return make_tiny_model(decoder_positions=bool(variant), size_augmentation=0.0)
    options = {"without a prior": {"use_instruction": False}, "soft belief": {"belief": "soft"}}
    return make_tiny_pir_model(**options.get(variant, {}))


def gradients(model, batch):
    output = model.double().train()(**batch)
    (output.text_embeds.sin().sum() + output.image_embeds.sin().sum()).backward()
    return output, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same(found, wanted):
    """Whether two sets of gradients agree; some parts compute in float32 whatever comes in."""
    return all((found[name] - wanted[name]).abs().max() < 1e-6 * (1 + wanted[name].abs().max()) for name in wanted)


def test_embeddings_and_gradients_are_those_of_one_padded_batch(model, batch, monkeypatch):
    other = copy.deepcopy(model)
    assert model.train().length_groups(batch["attention_mask"]).groups is not None
    output, grads = gradients(model, batch)
    monkeypatch.setattr(LengthGroups, "__init__", lambda self, mask: setattr(self, "groups", None))
    expected, wanted = gradients(other, batch)
    assert (output.text_embeds - expected.text_embeds).abs().max() < 1e-6
    assert grads.keys() == wanted.keys()
    assert same(grads, wanted)


@pytest.mark.parametrize("system", ["d2s_vse", "pir"])
def test_they_are_those_of_the_plain_parts(system, make_tiny_model, make_tiny_pir_model, batch):
    model = make_tiny_model(size_augmentation=0.0) if system == "d2s_vse" else make_tiny_pir_model()
    output, grads = gradients(model, batch)
    model.zero_grad()
    expected, wanted = gradients(plain(model), batch)
    assert (output.text_embeds - expected.text_embeds).abs().max() < 1e-6
    assert (output.image_embeds - expected.image_embeds).abs().max() < 1e-6
    shared = grads.keys() & wanted.keys()  # the GRUs of the plain poolings are copies
    assert len(shared) > 20 and same(grads, {name: wanted[name] for name in shared})


def test_less_is_computed(tiny_model, batch, monkeypatch):
    seen = []
    forward = tiny_model.text_model.forward
    monkeypatch.setattr(
        tiny_model.text_model, "forward", lambda **given: (seen.append(given["input_ids"].numel()), forward(**given))[1]
    )
    tiny_model.train()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    assert len(seen) == 4 and sum(seen) < 0.5 * batch["input_ids"].numel()


def test_a_batch_stays_whole_where_little_would_be_saved_or_padding_is_read(make_tiny_model, batch):
    mask = batch["attention_mask"]
    assert LengthGroups(mask).groups is not None
    assert LengthGroups(mask[:15]).groups is None  # few rows
    assert LengthGroups(mask[:, :3]).groups is None  # of one length
    assert LengthGroups(mask.flip(1)).groups is None  # padded on the left
    assert make_tiny_model(legacy=True).train().length_groups(mask).groups is None
    assert make_tiny_model().eval().length_groups(mask).groups is None
    sharded = make_tiny_model().train()
    sharded.text_model.unshard = None  # a method of what FSDP2 has sharded, here a part of the model
    assert sharded.length_groups(mask).groups is None


def calls_of_tower(model, **inputs) -> int:
    """How often a training forward calls the text tower."""
    count, handle = [], model.text_model.register_forward_hook(lambda *given: count.append(1))
    model.train()(**inputs)
    handle.remove()
    return len(count)


def test_the_tower_runs_once_where_several_calls_would_be_another_thing(make_tiny_model, batch):
    texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    types = torch.zeros_like(texts["input_ids"])
    assert calls_of_tower(make_tiny_model(), **texts, token_type_ids=types, output_hidden_states=False) == 4
    assert calls_of_tower(make_tiny_model(), **texts, output_hidden_states=True) == 1
    told = make_tiny_model()
    told.text_model.config.output_hidden_states = True
    assert calls_of_tower(told, **texts) == 1
    assert len(told(**texts).text_model_output.hidden_states) == 3
    recomputed = make_tiny_model()
    recomputed.gradient_checkpointing_enable()
    assert calls_of_tower(recomputed, **texts) == 1


@pytest.mark.parametrize("lengths", [[0, *[3] * 9, *[30] * 8], [0, *[8] * 7, *[30] * 8], [0, 5, 6, 30]])
def test_a_caption_without_tokens_harms_nobody(tiny_model, lengths):
    mask = (torch.arange(30) < torch.tensor(lengths)[:, None]).long()
    output = tiny_model.train()(input_ids=mask * 7, attention_mask=mask)
    assert torch.isfinite(output.text_embeds).all()
