"""D2S-VSE: closed forms and invariances of the model, on tiny seeded towers."""

import math

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from vsehub import D2SVSEModel
from vsehub.modeling.modeling_d2s_vse import MaskTokenDecoder

PADDED = 7  # columns of padding that a test adds


def padded(text_batch, columns=PADDED):
    """The same captions with more padding to the right."""
    return {name: F.pad(value, (0, columns)) for name, value in text_batch.items()}


def assert_near(found, expected, atol=1e-6):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


# --- padding, order, batch-mates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"decoder_positions": True, "token_placement": "surround"}])
def test_more_padding_changes_no_text_embedding(make_tiny_model, tiny_text_batch, options):
    model = make_tiny_model(**options)
    with torch.no_grad():
        assert_near(model(**padded(tiny_text_batch)).text_embeds, model(**tiny_text_batch).text_embeds)


def test_more_padding_changes_neither_training_embeddings_nor_statistics(make_tiny_model, tiny_text_batch):
    tight, loose = make_tiny_model().train(), make_tiny_model().train()
    with torch.no_grad():
        assert_near(loose(**padded(tiny_text_batch)).text_embeds, tight(**tiny_text_batch).text_embeds)
    for name in ("running_mean", "running_var"):
        assert_near(getattr(loose.text_head.norm, name), getattr(tight.text_head.norm, name))
    assert tight.text_head.norm.running_mean.abs().max() > 0


def test_a_batch_of_one_equals_its_row_in_a_batch(tiny_model, tiny_text_batch, tiny_image_batch):
    pixels = tiny_image_batch["pixel_values"]
    with torch.no_grad():
        together = tiny_model(**tiny_text_batch, pixel_values=pixels)
        for row, length in enumerate(tiny_text_batch["attention_mask"].sum(1)):
            caption = {name: value[row : row + 1, :length] for name, value in tiny_text_batch.items()}
            alone = tiny_model(**caption, pixel_values=pixels[row : row + 1])
            assert_near(alone.text_embeds[0], together.text_embeds[row])
            assert_near(alone.image_embeds[0], together.image_embeds[row])


@pytest.mark.parametrize("positions", [False, True])
@pytest.mark.parametrize("placement", ["prefix", "postfix", "surround"])
def test_the_decoder_ignores_padding_on_either_side(make_tiny_config, placement, positions):
    decoder = seeded_decoder(make_tiny_config(token_placement=placement, decoder_positions=positions))
    words, mask = torch.randn(2, 5, 16), torch.ones(2, 5)
    with torch.no_grad():
        expected = decoder(words, mask)
        right = decoder(F.pad(words, (0, 0, 0, 4), value=9.0), F.pad(mask, (0, 4)))
        left = decoder(F.pad(words, (0, 0, 4, 0), value=9.0), F.pad(mask, (4, 0)))
    assert_near(right, expected)
    assert_near(left, expected)


def seeded_decoder(config):
    torch.manual_seed(3)
    decoder = MaskTokenDecoder(config)
    nn.init.normal_(decoder.mask_tokens)
    return decoder


@pytest.mark.parametrize("num_tokens", [6, 7])
def test_placement_is_a_no_op_without_positions_and_not_one_with_them(make_tiny_config, num_tokens):
    words, mask = torch.randn(2, 5, 16), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])

    def decode(positions):
        placements = ("prefix", "postfix", "surround")
        configs = [
            make_tiny_config(num_mask_tokens=num_tokens, token_placement=placement, decoder_positions=positions)
            for placement in placements
        ]
        with torch.no_grad():
            return [seeded_decoder(config)(words, mask) for config in configs]

    prefix, postfix, surround = decode(positions=False)
    assert_near(prefix, postfix)
    assert_near(prefix, surround)
    prefix, postfix, surround = decode(positions=True)
    assert min((prefix - postfix).abs().max(), (prefix - surround).abs().max()) > 1e-3
    assert (postfix - surround).abs().max() > 1e-3


def test_the_decoder_equals_torchs_pre_norm_transformer(make_tiny_config):
    decoder = seeded_decoder(make_tiny_config()).eval()
    twin = nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True, layer_norm_eps=1e-5
    )
    words, mask = torch.randn(3, 5, 16), torch.tensor([[1] * 5, [1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    hidden = torch.cat([words, decoder.mask_tokens.expand(3, -1, -1)], dim=1)
    hide = F.pad(mask == 0, (0, 6))
    with torch.no_grad():
        for layer in decoder.layers:
            names = {"self_attn.in_proj_": layer.qkv, "self_attn.out_proj.": layer.proj, "linear1.": layer.fc1}
            names |= {"linear2.": layer.fc2, "norm1.": layer.norm1, "norm2.": layer.norm2}
            weights = {f"{name}weight": part.weight for name, part in names.items()}
            twin.load_state_dict(weights | {f"{name}bias": part.bias for name, part in names.items()})
            hidden = twin.train()(hidden, src_key_padding_mask=hide)  # train(): the plain path, no nested tensors
        assert_near(decoder(words, mask), decoder.norm(hidden[:, 5:]).mean(1))


# --- training: augmentation, gradients, checkpointing ----------------------------------------------------------------


def test_size_augmentation_drops_as_many_tokens_as_the_paper_says(tiny_model):
    torch.manual_seed(0)
    tokens = torch.empty(4000, 100, 1)
    assert tiny_model._surviving(tokens) is None  # eval
    dropped = 1 - tiny_model.train()._surviving(tokens).float().mean(1)
    # u ~ U(0, 1) drops nothing below 0.2 and 0.2 u above: E = 0.2 * (1 - 0.04) / 2; 4 to 20 % of an image.
    assert dropped.mean().item() == pytest.approx(0.096, abs=0.003)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert dropped.max().item() < 0.4


def test_size_augmentation_never_drops_every_token_and_can_be_switched_off(make_tiny_model):
    greedy = make_tiny_model(size_augmentation=0.99).train()
    assert all(greedy._surviving(torch.empty(500, 2, 1)).any(1).all() for _ in range(5))
    assert make_tiny_model(size_augmentation=0).train()._surviving(torch.empty(5, 2, 1)) is None


def backward(model, text_batch, image_batch):
    """A loss that looks at every coordinate of both embeddings, and its gradients."""
    output = model(**text_batch, **image_batch)
    generator = torch.Generator().manual_seed(5)
    loss = sum(
        (embeds * torch.randn(embeds.shape, generator=generator).to(embeds)).sum()
        for embeds in (output.text_embeds, output.image_embeds)
    )
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}


def assert_every_gradient(gradients):
    silent = [name for name, grad in gradients.items() if grad is None]
    assert not silent, f"no gradient reaches {silent}"
    assert all(torch.isfinite(grad).all() for grad in gradients.values())


@pytest.mark.parametrize("options", [{}, {"use_decoder": False}, {"residual": False}, {"legacy": True}])
def test_a_gradient_reaches_every_trainable_parameter(make_tiny_model, tiny_text_batch, tiny_image_batch, options):
    gradients = backward(make_tiny_model(**options).train(), tiny_text_batch, tiny_image_batch)
    if not options.get("residual", True):  # the caption's own vector is unused then
        gradients = {k: v for k, v in gradients.items() if not k.startswith(("text_pooling.", "text_norm."))}
    assert_every_gradient(gradients)
    # Softmax does not see a constant added to all its scores, so a key's bias has none.
    zero = [name for name, grad in gradients.items() if not grad.any() and "bias" not in name]
    assert not zero, f"zero gradient at {zero}"


@pytest.mark.filterwarnings("ignore::FutureWarning")  # a new name since 5.23, which 5.0 does not know
def test_gradient_checkpointing_changes_no_gradient(make_tiny_model, tiny_text_batch, tiny_image_batch):
    plain, thrifty = (make_tiny_model(size_augmentation=0).train() for _ in range(2))
    thrifty.gradient_checkpointing_enable()
    assert any(getattr(module, "gradient_checkpointing", False) for module in thrifty.modules())
    expected = backward(plain, tiny_text_batch, tiny_image_batch)
    for name, gradient in backward(thrifty, tiny_text_batch, tiny_image_batch).items():
        assert_near(gradient, expected[name])


def test_bfloat16_is_finite_in_forward_and_backward(make_tiny_model, tiny_text_batch, tiny_image_batch):
    model = make_tiny_model()
    with torch.no_grad():
        expected = model(**tiny_text_batch, **tiny_image_batch)
    model = model.to(torch.bfloat16)
    with torch.no_grad():
        found = model(**tiny_text_batch, **tiny_image_batch)
    for name in ("text_embeds", "image_embeds"):
        assert found[name].dtype == torch.bfloat16
        assert (found[name].float().norm(dim=-1) - 1).abs().max() < 2e-3  # not the rounding of a length in bfloat16
        assert F.cosine_similarity(found[name].float(), expected[name]).min() > 0.99
    assert_every_gradient(backward(model.train(), tiny_text_batch, tiny_image_batch))


# --- saving ----------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_loaded(make_tiny_model, tmp_path):
    model = make_tiny_model()
    with torch.no_grad():  # no tensor may equal what an initialisation would give
        for tensor in model.state_dict().values():
            tensor.add_(torch.randint(1, 5, tensor.shape).to(tensor.dtype))
    model.save_pretrained(tmp_path)
    loaded, info = D2SVSEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, found = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (model, loaded))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_weights_that_a_checkpoint_lacks_are_initialised_as_in_a_new_model(make_tiny_model, tmp_path):
    make_tiny_model(num_mask_tokens=64).save_pretrained(tmp_path)
    ours = ("image_", "text_head.", "text_pooling.", "text_norm.", "mask_token_decoder.")
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(ours)}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    torch.manual_seed(6)
    model, info = D2SVSEModel.from_pretrained(tmp_path, output_loading_info=True)
    assert len(info["missing_keys"]) == len(tensors) - len(kept) > 50
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())

    assert model.mask_token_decoder.mask_tokens.std().item() == pytest.approx(1, abs=0.1)
    assert model.mask_token_decoder.mask_tokens.mean().item() == pytest.approx(0, abs=0.1)
    assert_uniform(model.image_projection.weight, math.sqrt(6 / (32 + 16)))
    assert not model.image_projection.bias.any()
    for pool in (model.image_pooling, model.text_pooling):
        assert_uniform(torch.cat([p.flatten() for p in pool.gru.parameters()]), 1 / math.sqrt(8))
    for linear in (model.text_head.linear, model.text_head.fc1, model.mask_token_decoder.layers[1].qkv):
        assert_uniform(linear.weight, 1 / math.sqrt(linear.in_features))
    for norm in (model.text_norm, model.text_head.norm, model.mask_token_decoder.norm):
        assert (norm.weight == 1).all() and (norm.bias == 0).all()
    norm = model.text_head.norm
    assert (norm.running_mean == 0).all() and (norm.running_var == 1).all() and norm.num_batches_tracked == 0


def assert_uniform(tensor, bound):
    """A sample of U(-bound, bound): within, filling it, of its standard deviation."""
    assert tensor.abs().max().item() <= bound
    assert tensor.abs().max().item() > 0.9 * bound
    assert tensor.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)


def test_a_new_model_and_a_loaded_one_agree_on_every_output(tiny_model, tiny_folder, tiny_text_batch, tiny_image_batch):
    loaded = transformers.AutoModel.from_pretrained(tiny_folder)
    assert type(loaded) is D2SVSEModel and not loaded.training
    with torch.no_grad():
        expected, found = (m(**tiny_text_batch, **tiny_image_batch) for m in (tiny_model, loaded))
    for name in ("text_embeds", "image_embeds", "logits_per_image"):
        assert torch.equal(found[name], expected[name]), name


# --- the official code's behaviour -----------------------------------------------------------------------------------


def test_legacy_text_depends_on_padding_and_images_do_not_change(make_tiny_model, tiny_text_batch, tiny_image_batch):
    model, official = make_tiny_model(), make_tiny_model(legacy=True)
    with torch.no_grad():
        tight, loose = official(**tiny_text_batch), official(**padded(tiny_text_batch))
        assert (tight.text_embeds - loose.text_embeds).abs().max() > 1e-4
        assert torch.equal(model(**tiny_image_batch).image_embeds, official(**tiny_image_batch).image_embeds)


def test_legacy_adds_the_decoded_vector_raw_in_training_and_normalised_in_eval(make_tiny_model, tiny_text_batch):
    ids, mask = tiny_text_batch["input_ids"], tiny_text_batch["attention_mask"]
    for legacy in (False, True):
        model = make_tiny_model(legacy=legacy)
        with torch.no_grad():
            hidden = model.text_model(input_ids=ids, attention_mask=mask).last_hidden_state
            _, pooled, decoded = model.text_parts(hidden, mask)
            found = model.get_text_features(**tiny_text_batch).pooler_output
            added = F.normalize(decoded, dim=-1) if legacy else decoded
            assert_near(found, pooled + added)
            model.train()
            _, pooled, decoded = model.text_parts(hidden, mask)
            assert_near(model.get_text_features(**tiny_text_batch).pooler_output, pooled + decoded, atol=1e-5)


def test_legacy_batch_norm_counts_the_padding(make_tiny_model, tiny_text_batch):
    model, official = make_tiny_model().train(), make_tiny_model(legacy=True).train()
    mask = tiny_text_batch["attention_mask"]
    with torch.no_grad():
        hidden = model.text_model(input_ids=tiny_text_batch["input_ids"], attention_mask=mask).last_hidden_state
        inner = model.text_head.fc1(hidden)
        for either in (model, official):
            either.text_head(hidden, mask)
    assert_near(model.text_head.norm.running_mean, inner[mask.bool()].mean(0) * 0.1)
    assert_near(official.text_head.norm.running_mean, inner.flatten(0, 1).mean(0) * 0.1)
    assert (model.text_head.norm.running_mean - official.text_head.norm.running_mean).abs().max() > 1e-4


# --- towers ----------------------------------------------------------------------------------------------------------

STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCHES = {"image_size": 16, "patch_size": 8}  # run on 32 pixels: position tables are interpolated
WINDOWS = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
TOWERS = {  # name -> configuration class, its arguments, tokens of a 32-pixel image, width
    "vit": ("ViTConfig", {**LAYERS, **PATCHES, "intermediate_size": 32}, 17, 16),
    "swin": ("SwinConfig", {**WINDOWS, "image_size": 16}, 64, 16),
    "dinov2": ("Dinov2Config", {**LAYERS, **PATCHES, "mlp_ratio": 2}, 17, 16),
    "resnet": ("ResNetConfig", {**STAGES, "embedding_size": 8, "layer_type": "basic"}, 16, 16),
    "convnext": ("ConvNextConfig", {**STAGES, "num_stages": 2, "patch_size": 4}, 16, 16),
    "mobilenet_v2": ("MobileNetV2Config", {"depth_multiplier": 0.25, "image_size": 32}, 1, 1280),
    "clip_vision": ("CLIPVisionConfig", {**LAYERS, **PATCHES, "intermediate_size": 32}, 17, 16),
    "siglip_vision": ("SiglipVisionConfig", {**LAYERS, **PATCHES, "intermediate_size": 32}, 16, 16),
}


@pytest.fixture(params=TOWERS)
def tower(request):
    config_class, arguments, tokens, width = TOWERS[request.param]
    return getattr(transformers, config_class)(**arguments), tokens, width


def test_any_vision_tower_gives_tokens_and_no_parameter_is_left_without_gradient(
    make_tiny_model, tower, tiny_text_batch, tiny_image_batch, tmp_path
):
    vision_config, tokens, width = tower
    model = make_tiny_model(vision_config=vision_config).train()
    hidden = model.vision_tokens(tiny_image_batch["pixel_values"])
    assert hidden.shape == (6, tokens, width) and model.config.vision_width == width
    assert_every_gradient(backward(model, tiny_text_batch, tiny_image_batch))
    model.save_pretrained(tmp_path)
    loaded = D2SVSEModel.from_pretrained(tmp_path).train()  # what was frozen must be frozen again
    assert_every_gradient(backward(loaded, tiny_text_batch, tiny_image_batch))


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2"])
def test_the_vision_towers_batch_norm_stays_put_unless_it_is_asked_to_move(make_tiny_model, tiny_image_batch, name):
    config_class, arguments, _, _ = TOWERS[name]
    vision_config = getattr(transformers, config_class)(**arguments)
    for frozen in (True, False):
        model = make_tiny_model(vision_config=vision_config, freeze_vision_batch_norm=frozen).train()
        before = {name: buffer.clone() for name, buffer in model.vision_model.named_buffers()}
        assert any("running_mean" in name for name in before)
        with torch.no_grad():
            model(**tiny_image_batch)
        moved = [name for name, buffer in model.vision_model.named_buffers() if not torch.equal(buffer, before[name])]
        assert bool(moved) is not frozen


def test_a_text_tower_need_not_be_bert(make_tiny_model, tiny_text_batch, tiny_image_batch, tiny_text_config):
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32, "max_position_embeddings": 64}
    text_config = transformers.DistilBertConfig(
        vocab_size=tiny_text_config.vocab_size, dropout=0.0, attention_dropout=0.0, **sizes
    )
    model = make_tiny_model(text_config=text_config).train()
    text_batch = {name: value for name, value in tiny_text_batch.items() if name != "token_type_ids"}
    assert_every_gradient(backward(model, text_batch, tiny_image_batch))


# --- forward and encode ----------------------------------------------------------------------------------------------
