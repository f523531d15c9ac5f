"""PIR: closed forms and invariances of the model, on tiny seeded towers."""

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional as F

from vsehub import PIRModel

PADDED = 7  # columns of padding that a test adds
ALONE = {"use_instruction": False}
BASELINE = {"instruction_layers": 0, "cycles": 0}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
PATCHES = {"image_size": 16, "patch_size": 8}  # run on 32 pixels: position tables are interpolated
STAGES = {"hidden_sizes": [8, 16], "depths": [1, 1]}
WINDOWS = {"patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
WIDE = {**LAYERS, **PATCHES, "intermediate_size": 32}
TOWERS = {  # name -> configuration class, its arguments, tokens before the patches, patches of a 32-pixel image
    "vit": ("ViTConfig", WIDE, 1, 16),
    "deit": ("DeiTConfig", WIDE, 2, 16),
    "dinov2": ("Dinov2Config", {**LAYERS, **PATCHES, "mlp_ratio": 2}, 1, 16),
    "registers": ("Dinov2WithRegistersConfig", {**LAYERS, **PATCHES, "mlp_ratio": 2}, 5, 16),
    "clip_vision": ("CLIPVisionConfig", WIDE, 1, 16),
    "siglip_vision": ("SiglipVisionConfig", WIDE, 0, 16),
    "swin": ("SwinConfig", {**WINDOWS, "image_size": 16}, 0, 64),
    "resnet": ("ResNetConfig", {**STAGES, "embedding_size": 8, "layer_type": "basic"}, 0, 16),
    "convnext": ("ConvNextConfig", {**STAGES, "num_stages": 2, "patch_size": 4}, 0, 16),
}


def padded(text_batch, columns=PADDED):
    """The same captions with more padding to the right."""
    return {name: F.pad(value, (0, columns)) for name, value in text_batch.items()}


def assert_near(found, expected, atol=1e-6):
    torch.testing.assert_close(found, expected, atol=atol, rtol=0)


@pytest.fixture
def hidden_states():
    """Hidden states of a vision tower (6, 17, 32) and of an instruction encoder (6, 12)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 17, 32, generator=generator), torch.randn(6, 12, generator=generator)


# --- the equations, image by image and caption by caption -------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("norm", ["sum", "branch"])
def test_images_are_the_papers_equations(make_tiny_pir_model, hidden_states, norm):
    model = make_tiny_pir_model(tel_norm=norm)
    found = model(vision_hidden_states=hidden_states[0], scene_states=hidden_states[1])
    side = model.visual_instruction
    for row, (hidden, scene) in enumerate(zip(*hidden_states)):
        tokens, instruction = model.vision_projection(hidden), model.instruction_projection(scene)
        kept = sorted(tokens, key=lambda token: -(token @ instruction).item())[:9]
        kept = torch.stack(kept)[None]
        for layer, linear in zip(side.layers, side.maps):
            kept = layer(kept, linear(instruction).expand(1, 9, -1))  # as many queries as tokens
        expected = F.normalize(tokens[0] + side.head(kept[0, 0]), dim=-1)
        assert_near(found.image_embeds[row], expected)
        assert torch.equal(found.vision_model_output.last_hidden_state[row], hidden)


@torch.no_grad()
def test_texts_are_the_papers_equations(make_tiny_pir_model, tiny_text_batch):
    model = make_tiny_pir_model()
    found, side = model(**tiny_text_batch).text_embeds, model.language_cycles
    for row, length in enumerate(tiny_text_batch["attention_mask"].sum(1)):
        caption = {name: value[row : row + 1, :length] for name, value in tiny_text_batch.items()}
        tokens = model.text_projection(model.text_model(**caption).last_hidden_state)
        words = tokens
        for layer, linear in zip(side.layers, side.maps):
            words = layer(words, linear(words))
        assert_near(found[row], F.normalize(tokens[0, 0] + side.head(words[0, 0]), dim=-1))


@torch.no_grad()
def test_without_instruction_the_image_reads_itself_and_keeps_every_token(make_tiny_pir_model, hidden_states):
    model = make_tiny_pir_model(**ALONE)
    assert model.instruction_model is None and model.instruction_projection is None
    parts, side = model.image_parts(hidden_states[0], None), model.visual_instruction
    assert parts.instruction is None and parts.belief_logits is None
    tokens = hidden = model.vision_projection(hidden_states[0])
    for layer, linear in zip(side.layers, side.maps):
        hidden = layer(hidden, linear(hidden))
    assert_near(parts.local, side.head(hidden[:, 0]))
    found = model(vision_hidden_states=hidden_states[0]).image_embeds
    assert_near(found, F.normalize(tokens[:, 0] + parts.local, dim=-1))


@torch.no_grad()
def test_the_baseline_is_two_projected_class_tokens(make_tiny_pir_model, tiny_text_batch, tiny_image_batch):
    model = make_tiny_pir_model(**BASELINE)
    assert not {"instruction_model", "visual_instruction", "language_cycles"} & {n for n, _ in model.named_children()}
    output = model(**tiny_text_batch, **tiny_image_batch)
    image = model.vision_projection(output.vision_model_output.last_hidden_state)
    text = model.text_projection(output.text_model_output.last_hidden_state)
    assert_near(output.image_embeds, F.normalize(image[:, 0], dim=-1))
    assert_near(output.text_embeds, F.normalize(text[:, 0], dim=-1))


# --- padding, order, batch-mates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"text_readout": "last"}, {"tel_norm": "branch"}, BASELINE])
def test_more_padding_changes_no_text_embedding_in_eval_or_training(make_tiny_pir_model, tiny_text_batch, options):
    for model in (make_tiny_pir_model(**options), make_tiny_pir_model(**options).train()):
        with torch.no_grad():
            assert_near(model(**padded(tiny_text_batch)).text_embeds, model(**tiny_text_batch).text_embeds)


@pytest.mark.parametrize("options", [{}, {"belief": "soft"}, {"text_readout": "last"}, ALONE])
def test_a_batch_of_one_equals_its_row_in_a_batch(make_tiny_pir_model, tiny_text_batch, tiny_image_batch, options):
    model, pixels = make_tiny_pir_model(**options), tiny_image_batch["pixel_values"]
    with torch.no_grad():
        together = model(**tiny_text_batch, pixel_values=pixels)
        for row, length in enumerate(tiny_text_batch["attention_mask"].sum(1)):
            caption = {name: value[row : row + 1, :length] for name, value in tiny_text_batch.items()}
            alone = model(**caption, pixel_values=pixels[row : row + 1])
            assert_near(alone.text_embeds[0], together.text_embeds[row])
            assert_near(alone.image_embeds[0], together.image_embeds[row])


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"belief": "soft"}, ALONE])
def test_patches_in_another_order_give_the_same_image(make_tiny_pir_model, hidden_states, options):
    model, (hidden, scene) = make_tiny_pir_model(**options), hidden_states
    shuffled = hidden[:, torch.cat([torch.tensor([0]), 1 + torch.randperm(16)])]
    found = model(vision_hidden_states=shuffled, scene_states=scene).image_embeds
    assert_near(found, model(vision_hidden_states=hidden, scene_states=scene).image_embeds)


@torch.no_grad()
def test_legacy_text_depends_on_padding_and_images_do_not_change(
    make_tiny_pir_model, tiny_text_batch, tiny_image_batch
):
    model, official = make_tiny_pir_model(), make_tiny_pir_model(legacy=True)
    tight, loose = official(**tiny_text_batch), official(**padded(tiny_text_batch))
    assert (tight.text_embeds - loose.text_embeds).abs().max() > 1e-3
    assert_near(model(**tiny_image_batch).image_embeds, official(**tiny_image_batch).image_embeds)
    longest = tiny_text_batch["attention_mask"].sum(1).argmax()  # the one without padding
    assert_near(tight.text_embeds[longest], model(**tiny_text_batch).text_embeds[longest])


# --- belief and filter -----------------------------------------------------------------------------------------------


def tokens_of_belief(logits, instruction):
    """Random tokens whose dot products with one instruction (D,) are `logits`: (N,) -> (1, N, D)."""
    tokens = torch.randn(len(logits), len(instruction), generator=torch.Generator().manual_seed(2))
    unit = instruction / instruction.norm()
    tokens = tokens - (tokens @ unit)[:, None] * unit
    return (tokens + logits[:, None] * unit / instruction.norm())[None]


@torch.no_grad()
@pytest.mark.parametrize("belief", ["hard", "soft"])
def test_only_the_most_believed_tokens_matter(make_tiny_pir_model, belief):
    side = make_tiny_pir_model(filter_size=3, belief=belief).visual_instruction
    instruction, logits = torch.randn(16), torch.tensor([0.5, 3.0, -1.0, 2.0, -2.0, 1.0])  # kept: rows 1, 3, 5
    tokens = tokens_of_belief(logits, instruction)
    local, found = side(tokens, instruction[None])
    assert_near(found[0], logits, atol=1e-5)
    dropped = tokens.clone()
    dropped[0, [0, 2, 4]] = tokens_of_belief(torch.tensor([-9.0, 0.9, -3.0]), instruction)[0]
    assert_near(side(dropped, instruction[None])[0], local)
    assert_near(side(tokens[:, [1, 3, 5]], instruction[None])[0], local)  # fewer tokens than the filter takes: all
    for row in (1, 3, 5):
        other = tokens.clone()
        other[0, row] += tokens_of_belief(torch.zeros(1), instruction)[0, 0]  # as much believed as before
        assert (side(other, instruction[None])[0] - local).abs().max() > 1e-3


@torch.no_grad()
def test_belief_sorts_where_a_softmax_would_underflow_to_ties(make_tiny_pir_model):
    logits = torch.tensor([-400.0, -300.0, 500.0, -200.0])
    assert logits.softmax(0).unique().numel() == 2
    instruction = torch.randn(16)
    tokens = tokens_of_belief(logits, instruction)
    side = make_tiny_pir_model(filter_size=2).visual_instruction
    expected = side(tokens[:, [2, 3]], instruction[None])[0]
    for order in ([0, 1, 2, 3], [1, 0, 3, 2], [3, 2, 1, 0]):
        assert_near(side(tokens[:, order], instruction[None])[0], expected, atol=1e-5)


def instruction_gradients(model, hidden_states):
    """What a loss on the images tells `instruction_projection` through the belief: nothing else depends on it."""
    for linear in model.visual_instruction.maps:  # the queries are now constants
        nn.init.zeros_(linear.weight)
    embeds = model(vision_hidden_states=hidden_states[0], scene_states=hidden_states[1]).image_embeds
    (embeds * torch.randn(embeds.shape, generator=torch.Generator().manual_seed(5))).sum().backward()
    return [parameter.grad for parameter in model.instruction_projection.parameters()]


def test_hard_belief_passes_no_gradient_and_soft_belief_does(make_tiny_pir_model, hidden_states):
    hard = instruction_gradients(make_tiny_pir_model().train(), hidden_states)
    assert all(gradient is None or not gradient.any() for gradient in hard)
    soft = instruction_gradients(make_tiny_pir_model(belief="soft").train(), hidden_states)
    assert all(gradient.abs().max() > 1e-6 for gradient in soft)


@torch.no_grad()
def test_equal_belief_in_every_token_reads_their_mean_when_soft(make_tiny_pir_model, hidden_states):
    model = make_tiny_pir_model(belief="soft", filter_size=17)
    side, tokens = model.visual_instruction, model.vision_projection(hidden_states[0])
    kept, weights = side._believed(tokens, torch.zeros(6, 17))
    assert_near(kept.mean(1), tokens.mean(1))  # in any order
    assert_near(weights, torch.full((6, 17), 1 / 17))


@torch.no_grad()
def test_belief_is_a_distribution_over_tokens_the_class_token_first(make_tiny_pir_model, tiny_image_batch):
    pixels = tiny_image_batch["pixel_values"]
    config_class, arguments, _, _ = TOWERS["swin"]
    model = make_tiny_pir_model(vision_config=getattr(transformers, config_class)(**arguments))
    belief = model.belief(pixels)
    assert belief.shape == (6, 65) and (belief >= 0).all()
    assert_near(belief.sum(-1), torch.ones(6))
    # The mean of the patches has the mean of their logits, so its belief is their geometric mean.
    assert_near(belief[:, 0].log(), belief[:, 1:].log().mean(1), atol=1e-5)
    for options in (ALONE, BASELINE):
        with pytest.raises(ValueError, match="no instruction encoder"):
            make_tiny_pir_model(**options).belief(pixels)


# --- towers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=TOWERS)
def tower(request):
    config_class, arguments, prefix, patches = TOWERS[request.param]
    return getattr(transformers, config_class)(**arguments), prefix, patches


@torch.no_grad()
def test_the_class_token_is_the_towers_own_or_the_mean_of_its_patches(make_tiny_pir_model, tower, tiny_image_batch):
    config, prefix, patches = tower
    model = make_tiny_pir_model(vision_config=config)
    hidden = model.vision_tokens(tiny_image_batch["pixel_values"])
    assert hidden.shape[1] == prefix + patches
    tokens = model.image_parts(hidden, tiny_image_batch["pixel_values"]).tokens
    first = hidden[:, 0] if prefix else hidden.mean(1)
    assert tokens.shape == (6, 1 + patches, 16)
    assert_near(tokens[:, 0], model.vision_projection(first), atol=1e-5)
    assert_near(tokens[:, 1:], model.vision_projection(hidden[:, prefix:]), atol=1e-5)


@torch.no_grad()
def test_any_vision_tower_instructs_with_its_class_token_or_mean(make_tiny_pir_model, tower, tiny_image_batch):
    config, prefix, patches = tower
    model, pixels = make_tiny_pir_model(instruction_config=config), tiny_image_batch["pixel_values"]
    hidden = model.instruction_model(pixels, **({"interpolate_pos_encoding": True} if _is_fixed(config) else {}))
    hidden = hidden.last_hidden_state
    hidden = hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden
    assert hidden.shape[1] == prefix + patches
    assert_near(model.instruct(pixels), hidden[:, 0] if prefix else hidden.mean(1), atol=1e-5)
    assert model.belief(pixels).shape == (6, 17)


def _is_fixed(config):
    return config.model_type in ("vit", "deit", "clip_vision_model", "siglip_vision_model", "swin")


TEXT = {"vocab_size": 200, "max_position_embeddings": 64, **LAYERS, "intermediate_size": 32}
CLIP_TEXT = {**TEXT, "eos_token_id": 2}
PAIRS = {"CLIP": CLIP_TEXT, "Siglip": TEXT}


@pytest.mark.parametrize(
    "family",
    [
        "CLIP",
        "Siglip",
    ],
)
def test_both_towers_may_come_from_one_checkpoint(
    family, make_tiny_pir_model, tiny_instruction_config, tiny_text_batch, tiny_image_batch, tmp_path
):
    config = getattr(transformers, f"{family}Config")(text_config=PAIRS[family], vision_config=WIDE)
    torch.manual_seed(0)
    pair = transformers.AutoModel.from_config(config).eval()
    pair.save_pretrained(tmp_path / "pair")
    prior = make_tiny_pir_model().instruction_model
    prior.save_pretrained(tmp_path / "prior")
    folder = str(tmp_path / "pair")
    sizes = {"projection_dim": 16, "image_size": 32, "attention_heads": 2, "filter_size": 9}
    model = PIRModel.from_vision_text_pretrained(folder, folder, str(tmp_path / "prior"), **sizes).eval()
    assert model.config.text_readout == "last"
    assert model.config.vision_prefix_tokens == (1 if family == "CLIP" else 0)
    for part, own in (("text_model.", model.text_model), ("vision_model.", model.vision_model)):
        theirs = pair.state_dict()  # transformers 5.0 has the part's name in the names of its weights, too
        assert all(torch.equal(value, theirs[part + k.removeprefix(part)]) for k, value in own.state_dict().items())
    prior_state = prior.state_dict()
    assert all(torch.equal(value, prior_state[name]) for name, value in model.instruction_model.state_dict().items())
    captions = {name: tiny_text_batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        output = model(**captions, **tiny_image_batch)
        words = model.text_projection(pair.text_model(**captions).last_hidden_state)
        last = captions["attention_mask"].sum(1) - 1
        local = model.language_cycles(words, captions["attention_mask"], last)
        assert_near(output.text_embeds, F.normalize(words[torch.arange(6), last] + local, dim=-1))
        assert_near(model(**padded(captions)).text_embeds, output.text_embeds)
    assert_every_gradient(backward(model.train(), captions, tiny_image_batch))


@torch.no_grad()
def test_pixels_are_renormalised_for_the_instruction_encoder_alone(make_tiny_pir_model, tiny_image_batch):
    pixels, scale, shift = tiny_image_batch["pixel_values"], [2.0, 1.0, 0.5], [0.1, 0.0, -0.3]
    plain, other = make_tiny_pir_model(), make_tiny_pir_model(instruction_scale=scale, instruction_shift=shift)
    moved = pixels * torch.tensor(scale)[:, None, None] + torch.tensor(shift)[:, None, None]
    assert_near(other.instruct(pixels), plain.instruct(moved))
    assert (other.instruct(pixels) - plain.instruct(pixels)).abs().max() > 1e-3
    assert torch.equal(other.vision_tokens(pixels), plain.vision_tokens(pixels))


@pytest.fixture
def tower_folders(make_tiny_pir_model, tmp_path):
    """Folders of a vision tower, a text tower and an instruction encoder."""
    model, folders = make_tiny_pir_model(seed=4), [str(tmp_path / name) for name in ("vision", "text", "prior")]
    for tower, folder in zip(model.towers(), folders):
        tower.save_pretrained(folder)
    return folders


def test_pretrained_towers_are_loaded_whole_and_a_missing_prior_is_an_error(tower_folders, make_tiny_pir_model):
    vision, text, prior = tower_folders
    sizes = {"projection_dim": 16, "image_size": 32, "attention_heads": 2}
    model = PIRModel.from_vision_text_pretrained(vision, text, prior, **sizes)
    for found, expected in zip(model.towers(), make_tiny_pir_model(seed=4).towers()):
        state = expected.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    with pytest.raises(ValueError, match="needs an instruction encoder.*use_instruction=False"):
        PIRModel.from_vision_text_pretrained(vision, text, **sizes)
    for options in (ALONE, {"instruction_layers": 0}):
        for given in (None, prior):  # not needed, so not loaded
            model = PIRModel.from_vision_text_pretrained(vision, text, given, **sizes, **options)
            assert model.instruction_model is None and len(model.towers()) == 2


# --- training --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "options",
    [{}, {"belief": "soft"}, {"tel_norm": "branch"}, {"legacy": True}, ALONE, {"cycles": 0}, BASELINE],
    ids=str,
)
def test_a_gradient_reaches_every_trainable_parameter(make_tiny_pir_model, tiny_text_batch, tiny_image_batch, options):
    gradients = backward(make_tiny_pir_model(**options).train(), tiny_text_batch, tiny_image_batch)
    assert_every_gradient(gradients)
    # Softmax does not see a constant added to all its scores, so a key's bias has none.
    zero = [name for name, grad in gradients.items() if not grad.any() and "bias" not in name]
    assert not zero, f"zero gradient at {zero}"


def test_the_instruction_encoder_never_moves(make_tiny_pir_model, tiny_text_batch, tiny_image_batch):
    model = make_tiny_pir_model(freeze_vision_batch_norm=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert any(name.startswith("instruction_model.") and "running_mean" in name for name in before)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    for _ in range(3):
        model.train()
        assert model.visual_instruction.training and not any(m.training for m in model.instruction_model.modules())
        optimizer.zero_grad()
        backward(model, tiny_text_batch, tiny_image_batch)
        optimizer.step()
    assert not any(p.requires_grad or p.grad is not None for p in model.instruction_model.parameters())
    still = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert {name for name in before if name.startswith("instruction_model.")} <= still
    assert not {name for name, p in model.named_parameters() if p.requires_grad and "bias" not in name} & still


@pytest.mark.filterwarnings("ignore::FutureWarning")  # a new name since 5.23, which 5.0 does not know
def test_gradient_checkpointing_changes_no_gradient(make_tiny_pir_model, tiny_text_batch, tiny_image_batch):
    plain, thrifty = (make_tiny_pir_model().train() for _ in range(2))
    thrifty.gradient_checkpointing_enable()
    assert any(getattr(module, "gradient_checkpointing", False) for module in thrifty.modules())
    expected = backward(plain, tiny_text_batch, tiny_image_batch)
    for name, gradient in backward(thrifty, tiny_text_batch, tiny_image_batch).items():
        assert_near(gradient, expected[name])


@pytest.mark.parametrize("options", [{}, {"belief": "soft"}, {"legacy": True}], ids=str)
def test_bfloat16_is_finite_in_forward_and_backward(make_tiny_pir_model, tiny_text_batch, tiny_image_batch, options):
    model = make_tiny_pir_model(
        instruction_scale=[1.1, 1.0, 0.9], instruction_shift=[0.0, 0.1, 0.0], filter_size=17, **options
    )
    with torch.no_grad():
        expected = model(**tiny_text_batch, **tiny_image_batch)
        model = model.to(torch.bfloat16)
        found = model(**tiny_text_batch, **tiny_image_batch)
        belief = model.belief(**tiny_image_batch)
    for name in ("text_embeds", "image_embeds"):
        assert found[name].dtype == torch.bfloat16 and torch.isfinite(found[name]).all()
    assert F.cosine_similarity(found.text_embeds.float(), expected.text_embeds).min() > 0.99
    assert_near(belief.float().sum(-1), torch.ones(6), atol=2e-2)
    assert_every_gradient(backward(model.train(), tiny_text_batch, tiny_image_batch))


# --- saving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, ALONE, BASELINE], ids=str)
def test_what_is_saved_is_what_is_loaded_and_frozen_again(make_tiny_pir_model, tmp_path, options):
    model = make_tiny_pir_model(**options)
    with torch.no_grad():  # no tensor may equal what an initialisation would give
        for tensor in model.state_dict().values():
            tensor.add_(torch.randint(1, 5, tensor.shape).to(tensor.dtype))
    model.save_pretrained(tmp_path)
    loaded, info = PIRModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    expected, found = (dict([*m.named_parameters(), *m.named_buffers()]) for m in (model, loaded))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
        assert tensor.requires_grad == found[name].requires_grad, name
    loaded = transformers.AutoModel.from_pretrained(tmp_path).train()
    assert type(loaded) is PIRModel and loaded.config.use_instruction is not bool(options)
    prior = loaded.instruction_model
    assert prior is None or not any(p.requires_grad for p in prior.parameters()) and not prior.training


# --- forward and encode ----------------------------------------------------------------------------------------------


def test_local_branches_can_start_at_zero(make_tiny_pir_model):
    model = make_tiny_pir_model(local_from_zero=True)
    local, _ = model.visual_instruction(torch.randn(2, 17, 16), torch.randn(2, 16))
    assert not local.any() and not model.language_cycles.head.weight.any()


def test_forward_takes_images_texts_or_both(make_tiny_pir_model, tiny_text_batch, tiny_image_batch):
    model = make_tiny_pir_model()
    with torch.no_grad():
        image, text = model(**tiny_image_batch), model(**tiny_text_batch)
        both = model(**tiny_text_batch, **tiny_image_batch, return_loss=True)
        values = model(**tiny_text_batch, **tiny_image_batch, return_dict=False)
        features = model.get_image_features(**tiny_image_batch, return_dict=False)
    assert image.text_embeds is None and image.loss is None and text.image_embeds is None
    assert torch.equal(image.image_embeds, both.image_embeds) and torch.equal(text.text_embeds, both.text_embeds)
    assert both.image_embeds.shape == both.text_embeds.shape == (6, 16)
    assert_near(both.image_embeds.norm(dim=-1), torch.ones(6))
    assert_near(both.text_embeds.norm(dim=-1), torch.ones(6))
    assert_near(both.logits_per_image, 20 * both.image_embeds @ both.text_embeds.t(), atol=1e-5)
    assert both.vision_model_output.last_hidden_state.shape == (6, 17, 32)
    assert both.text_model_output.last_hidden_state.shape == (*tiny_text_batch["input_ids"].shape, 32)
    assert_near(both.image_embeds, F.normalize(both.vision_model_output.pooler_output, dim=-1))
    for found, name in zip(values, ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds")):
        assert torch.equal(found, both[name]), name
    assert isinstance(features, tuple) and torch.equal(features[1], image.vision_model_output.pooler_output)


def test_hidden_states_replace_what_the_towers_would_compute(make_tiny_pir_model, tiny_text_batch, tiny_image_batch):
    model, pixels = make_tiny_pir_model(), tiny_image_batch["pixel_values"]
    with torch.no_grad():
        expected = model(**tiny_text_batch, **tiny_image_batch)
        found = model(
            attention_mask=tiny_text_batch["attention_mask"],
            vision_hidden_states=model.vision_tokens(pixels),
            scene_states=model.instruct(pixels),
            text_hidden_states=model.text_model(**tiny_text_batch).last_hidden_state,
        )
        asked = model(vision_hidden_states=model.vision_tokens(pixels), pixel_values=pixels)  # pixels for the scene
    assert_near(found.image_embeds, expected.image_embeds)
    assert_near(asked.image_embeds, expected.image_embeds)
    assert_near(found.text_embeds, expected.text_embeds)


def test_encoding_keeps_the_order_given_whatever_the_batches(
    make_tiny_pir_model, tiny_processor, tiny_captions, tiny_pictures
):
    model = make_tiny_pir_model().train()
    texts = model.encode_text(tiny_captions, batch_size=2, processor=tiny_processor)
    images = model.encode_image(tiny_pictures, batch_size=4, processor=tiny_processor)
    assert model.training and not model.instruction_model.training and texts.shape == images.shape == (6, 16)
    for row in range(6):
        assert_near(model.encode_text(tiny_captions[row], processor=tiny_processor)[0], texts[row])
        assert_near(model.encode_image(tiny_pictures[row], processor=tiny_processor)[0], images[row])
