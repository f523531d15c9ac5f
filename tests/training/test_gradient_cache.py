"""Gradient caching against a step on the whole batch, in all systems, with what is random and what is normalised."""

import pytest
import torch
from torch.nn import functional as F

from vsehub import D2SVSEModel, PIRModel
from vsehub.losses.matryoshka import MatryoshkaObjective
from vsehub.losses.objectives import D2SObjective, PairEmbeddings, PIRObjective
from vsehub.modeling.tel import Attention
from vsehub.training.gradient_cache import GradientCache
from vsehub.training.inputs.batches import HostBatch, PairBatch

PAIRS = 7
IDS = torch.tensor([0, 0, 1, 2, 3, 4, 4])
LABELS = torch.tensor([0, 0, 1, 1, 0, 2, 2])


@pytest.fixture(params=["stage 1", "stage 2", "PIR", "PIR with a scene encoder"])
def model(request, tiny_vision_config, tiny_text_config, tiny_instruction_config):
    torch.manual_seed(0)
    towers = tiny_vision_config, tiny_text_config
    if request.param.startswith("PIR"):
        scene = {"instruction_config": tiny_instruction_config.to_dict()} if "scene" in request.param else {}
        config = PIRModel.config_class.from_vision_text_configs(
            *towers, projection_dim=16, image_size=32, attention_heads=2, filter_size=3, use_instruction=bool(scene),
            instruction_width=tiny_instruction_config.hidden_sizes[-1], **scene,
        )  # fmt: skip
        return PIRModel(config)
    config = D2SVSEModel.config_class.from_vision_text_configs(
        *towers, projection_dim=16, image_size=32, num_mask_tokens=3, decoder_layers=2,
        use_decoder=request.param == "stage 2",
    )  # fmt: skip
    return D2SVSEModel(config)


def make_batch(kind=PairBatch):
    draw = torch.Generator().manual_seed(1)
    mask = (torch.arange(6) < torch.tensor([6, 2, 3, 4, 6, 5, 2])[:, None]).long()
    return kind(
        image_ids=IDS,
        pixel_values=torch.randn(PAIRS, 3, 32, 32, generator=draw)[IDS],
        input_ids=torch.randint(5, 15, (PAIRS, 6), generator=draw) * mask,
        attention_mask=mask,
        scene_labels=LABELS,
        dense_text_embeds=torch.randn(PAIRS, 16, generator=draw),
    )


def loss_of(model, images, texts, batch):
    pir = isinstance(model, PIRModel)
    objectives = (PIRObjective() if pir else D2SObjective(align="infonce", ramp_epochs=0) for _ in range(2))
    objective = MatryoshkaObjective(dict(zip((6, 16), objectives)))
    pairs = PairEmbeddings(
        image_embeds=F.normalize(images, dim=-1),
        text_embeds=F.normalize(texts, dim=-1),
        text_vectors=texts,
        image_ids=batch.image_ids,
        dense_text_embeds=batch.dense_text_embeds,
        labels=batch.scene_labels,
    )
    return objective(pairs, 1.0)[0]


def quiet(model):
    """Switch off what is random."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, Attention):
            module.dropout = 0.0
    model.config.size_augmentation = 0.0
    return model


def gradients(model):
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def plain_step(model, batch):
    """Loss, gradients and running statistics of a step on the whole batch."""
    model.train().zero_grad()
    outputs = model(**batch.model_inputs())
    images, texts = outputs.vision_model_output.pooler_output, outputs.text_model_output.pooler_output
    loss = loss_of(model, images, texts, batch)
    loss.backward()
    return loss.item(), gradients(model), dict(model.named_buffers())


def cached_step(model, batch, size):
    model.train().zero_grad()
    cache = GradientCache(model, size)
    loss = loss_of(model, *cache.embed(batch), batch)
    loss.backward()
    cache.backward()
    return loss.item(), gradients(model), dict(model.named_buffers())


def close(first, second, tolerance=1e-5):
    assert first.keys() == second.keys()
    for name in first:
        scale = first[name].double().abs().max().clamp(min=0.1)  # the bias before a batch-norm has none
        difference = (first[name].double() - second[name].double()).abs().max()
        assert difference <= tolerance * scale, f"{name}: {difference:.2e} of {scale:.2e}"


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_gradients_and_statistics_are_those_of_the_whole_batch(model, size):
    state = {name: tensor.clone() for name, tensor in quiet(model).state_dict().items()}
    loss, wanted, buffers = plain_step(model, make_batch())
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    model.load_state_dict(state)
    cached, got, after = cached_step(model, make_batch(HostBatch), size)
    assert cached == pytest.approx(loss, rel=1e-5)
    close(wanted, got)
    close(buffers, after)


def test_a_chunk_that_holds_the_batch_draws_what_a_plain_step_draws(model):
    torch.manual_seed(3)
    loss, wanted, _ = plain_step(model, make_batch())
    torch.manual_seed(3)
    cached, got, _ = cached_step(model, make_batch(), PAIRS)
    assert cached == pytest.approx(loss, rel=1e-5)
    close(wanted, got)


def test_random_draws_are_the_same_in_both_passes(model):
    """A loss whose gradient is the vectors themselves: other draws in the second pass would give other gradients."""
    if isinstance(model, D2SVSEModel):
        model.text_head.norm.weight.data.zero_()  # a batch-norm relates chunks: the reference below has none
    model.train()
    chunks = [make_batch().rows(start, start + 3) for start in range(0, PAIRS, 3)]
    torch.manual_seed(5)
    images = torch.cat([model.get_image_features(chunk.pixel_values).pooler_output for chunk in chunks])
    texts = [model.get_text_features(chunk.input_ids, attention_mask=chunk.attention_mask) for chunk in chunks]
    loss = images.square().sum() + torch.cat([text.pooler_output for text in texts]).square().sum()
    if isinstance(model, PIRModel):  # D2S-VSE runs tower and head chunk by chunk one after the other: other draws
        model.zero_grad()
        loss.backward()
        wanted = gradients(model)
        torch.manual_seed(5)
        model.zero_grad()
        cache = GradientCache(model, 3)
        got_images, got_texts = cache.embed(make_batch())
        (got_images.square().sum() + got_texts.square().sum()).backward()
        cache.backward()
        assert torch.equal(got_images.detach(), images.detach())
        close(wanted, gradients(model))
    cache = GradientCache(model, 3)
    first = [vectors.detach().clone() for vectors in cache.embed(make_batch())]
    seen = []
    for side in cache.sides:
        forward = side._pool if hasattr(side, "_pool") else side.forward
        name = "_pool" if hasattr(side, "_pool") else "forward"

        def kept(*args, forward=forward):
            seen.append(forward(*args))
            return seen[-1]

        setattr(side, name, kept)
    cache.sides[0].vectors.sum().backward()
    cache.sides[1].vectors.sum().backward()
    cache.backward()
    assert torch.equal(torch.cat(seen[:3]).detach(), first[0]) and torch.equal(torch.cat(seen[3:]).detach(), first[1])


def test_the_generators_go_on_after_the_second_pass(model):
    cache = GradientCache(model.train(), 2)
    images, texts = cache.embed(make_batch())
    before = torch.get_rng_state()
    (images.sum() + texts.sum()).backward()
    cache.backward()
    assert torch.equal(torch.get_rng_state(), before)


def test_frozen_towers_get_no_gradients_and_heads_all(model):
    quiet(model)
    model.vision_model.requires_grad_(False)
    model.text_model.requires_grad_(False)
    _, wanted, _ = plain_step(model, make_batch())
    _, got, _ = cached_step(model, make_batch(), 2)
    assert not any(name.startswith(("vision_model.", "text_model.")) for name in got)
    close(wanted, got)


def test_cached_states_of_frozen_towers_are_taken(model):
    quiet(model)
    model.vision_model.requires_grad_(False)
    model.text_model.requires_grad_(False)
    batch = make_batch()
    with torch.no_grad():
        batch.text_hidden_states = (
            model.eval().get_text_features(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        )
        batch.vision_hidden_states = model.vision_tokens(batch.pixel_values)
        if getattr(model, "instruction_model", None) is not None:
            batch.scene_states = model.instruct(batch.pixel_values)
    batch.input_ids = batch.pixel_values = None
    _, wanted, _ = plain_step(model, batch)
    _, got, _ = cached_step(model, batch, 2)
    close(wanted, got)


def test_a_batch_norm_that_would_see_a_chunk_is_refused(tiny_text_config, tiny_instruction_config):
    config = D2SVSEModel.config_class.from_vision_text_configs(
        tiny_instruction_config, tiny_text_config, projection_dim=16, image_size=32, use_decoder=False,
        vision_width=tiny_instruction_config.hidden_sizes[-1], freeze_vision_batch_norm=False,
    )  # fmt: skip
    with pytest.raises(ValueError, match="--freeze_vision_batch_norm True"):
        GradientCache(D2SVSEModel(config).train(), 2).embed(make_batch())


def test_pictures_and_texts_stay_on_the_host_until_their_chunk():
    batch = make_batch(HostBatch).to("meta")
    assert batch.pixel_values.device.type == "cpu" and batch.input_ids.device.type == "cpu"
    assert batch.image_ids.device.type == "meta" and batch.rows(0, 2).to("meta").pixel_values.device.type == "meta"
