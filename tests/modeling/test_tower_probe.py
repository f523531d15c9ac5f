"""Forty architectures, built tiny: what is measured of each, and which ones cannot be used and why."""

import pytest
import torch
import transformers
from torch import nn
from transformers import BertConfig, GPT2Config, LlamaConfig, PreTrainedConfig, RobertaConfig, ViTConfig

from vsehub import D2SVSEConfig, D2SVSEModel, PIRConfig, PIRModel
from vsehub.modeling.tower_probe import check_vocabulary, probe_text, probe_vision
from vsehub.modeling.towers import build_tower

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
PATCHED = {"image_size": 32, "patch_size": 8, **SMALL}
STEPS = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
HEADS = {**STEPS, "num_attention_heads": [1, 1, 1, 1]}
WINDOWS = {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
WORDS = {"vocab_size": 99, **SMALL, "max_position_embeddings": 40}
OWN_PAD = {**WORDS, "pad_token_id": 1}

VISION = {  # configuration, its settings, pixels -> tokens, width, prefix
    "vit": ("ViTConfig", PATCHED, 32, (17, 32, 1)),
    "deit": ("DeiTConfig", PATCHED, 32, (18, 32, 2)),
    "vit_msn": ("ViTMSNConfig", PATCHED, 32, (17, 32, 1)),
    "beit": ("BeitConfig", PATCHED, 32, (17, 32, 1)),
    "data2vec": ("Data2VecVisionConfig", PATCHED, 32, (17, 32, 1)),
    "dinov2": ("Dinov2Config", PATCHED, 32, (17, 32, 1)),
    "dinov2_registers": ("Dinov2WithRegistersConfig", {**PATCHED, "num_register_tokens": 4}, 32, (21, 32, 5)),
    "clip": ("CLIPVisionConfig", PATCHED, 32, (17, 32, 1)),
    "siglip": ("SiglipVisionConfig", PATCHED, 32, (16, 32, 0)),
    "ijepa": ("IJepaConfig", PATCHED, 32, (16, 32, 0)),
    "swin": ("SwinConfig", {**WINDOWS, "window_size": 2}, 32, (64, 16, 0)),
    "swinv2": ("Swinv2Config", {**WINDOWS, "window_size": 4}, 32, (64, 16, 0)),
    "focalnet": (
        "FocalNetConfig",
        {"image_size": 32, "embed_dim": 16, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3]},
        32,
        (16, 32, 0),
    ),
    "resnet": ("ResNetConfig", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}, 32, (16, 16, 0)),
    "regnet": (
        "RegNetConfig",
        {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8},
        32,
        (16, 16, 0),
    ),
    "convnext": ("ConvNextConfig", STEPS, 64, (4, 32, 0)),
    "convnextv2": ("ConvNextV2Config", STEPS, 64, (4, 32, 0)),
    "mobilenet_v1": ("MobileNetV1Config", {"depth_multiplier": 0.25}, 64, (4, 256, 0)),
    "mobilenet_v2": ("MobileNetV2Config", {"depth_multiplier": 0.35}, 64, (4, 1280, 0)),
    "mobilevit": (  # 48 is neck_hidden_sizes[-1], which no name of the configuration tells
        "MobileViTConfig",
        {"image_size": 64, "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 16, 24, 32, 48]},
        64,
        (4, 48, 0),
    ),
    "efficientnet": (
        "EfficientNetConfig",
        {"width_coefficient": 0.5, "depth_coefficient": 0.3, "hidden_dim": 640},
        64,
        (4, 640, 0),
    ),
    "pvt": ("PvtConfig", {"image_size": 64, **HEADS}, 64, (5, 32, 1)),
    "pvt_v2": ("PvtV2Config", {"image_size": 64, **HEADS}, 64, (4, 32, 0)),
    "segformer": ("SegformerConfig", HEADS, 64, (4, 32, 0)),
    "poolformer": ("PoolFormerConfig", STEPS, 64, (4, 32, 0)),
    "bit": (
        "BitConfig",
        {"embedding_size": 8, "hidden_sizes": [16, 24, 32, 64], "depths": [1, 1, 1, 1], "num_groups": 4},
        64,
        (4, 64, 0),
    ),
}
TEXT = {  # configuration, its settings -> longest of 60 asked, causal
    "bert": ("BertConfig", WORDS, (40, False)),
    "roberta": ("RobertaConfig", OWN_PAD, (38, False)),  # its table keeps two rows for itself
    "xlm_roberta": ("XLMRobertaConfig", OWN_PAD, (38, False)),
    "camembert": ("CamembertConfig", OWN_PAD, (38, False)),
    "mpnet": ("MPNetConfig", OWN_PAD, (38, False)),
    "distilbert": (
        "DistilBertConfig",
        {
            "vocab_size": 99,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 48,
            "max_position_embeddings": 40,
        },
        (40, False),
    ),
    "albert": ("AlbertConfig", {**WORDS, "embedding_size": 16}, (40, False)),
    "electra": ("ElectraConfig", {**WORDS, "embedding_size": 16}, (40, False)),
    "deberta_v2": ("DebertaV2Config", WORDS, (40, False)),
    "modernbert": ("ModernBertConfig", {**WORDS, "pad_token_id": 0}, (40, False)),
    "clip": ("CLIPTextConfig", {**WORDS, "max_position_embeddings": 77, "eos_token_id": 98}, (60, True)),
    "siglip": ("SiglipTextConfig", WORDS, (40, False)),
    "gpt2": ("GPT2Config", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40}, (40, True)),
    "llama": ("LlamaConfig", WORDS, (40, True)),
    "qwen3": ("Qwen3Config", {**WORDS, "head_dim": 16, "num_key_value_heads": 2}, (40, True)),
    "t5": (
        "T5Config",
        {"vocab_size": 99, "d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2},
        (60, False),
    ),
    "xlnet": ("XLNetConfig", {"vocab_size": 99, "d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 48}, (60, False)),
}


def tower_of(table, name):
    kind, settings, *expected = table[name]
    torch.manual_seed(0)
    return build_tower(getattr(transformers, kind)(**settings)), *expected


@pytest.mark.parametrize("name", VISION)
def test_a_vision_tower_tells_its_tokens_and_its_width(name):
    tower, size, expected = tower_of(VISION, name)
    before = {key: value.clone() for key, value in tower.state_dict().items()}
    probe = probe_vision(tower, size, name)
    assert (probe.tokens, probe.width, probe.prefix) == expected
    assert str(probe) == f"vision: {expected[0]} tokens x {expected[1]}"
    assert all(torch.equal(value, before[key]) for key, value in tower.state_dict().items())  # nothing has moved


@pytest.mark.parametrize("name", TEXT)
def test_a_text_tower_tells_its_longest_text_and_whether_it_is_causal(name):
    tower, (longest, causal) = tower_of(TEXT, name)
    probe = probe_text(tower, 60, pad_token_id=getattr(tower.config, "pad_token_id", None) or 0, name=name)
    assert (probe.longest, probe.causal, probe.width, probe.vocabulary) == (longest, causal, 32, 99)


@pytest.mark.parametrize(
    ("kind", "settings", "size", "expected"),
    [
        ("ViTMAEConfig", PATCHED, 32, "another output each time"),
        ("ViTConfig", PATCHED, 36, "--image_size 36 .* set it to 32 or 40"),
        ("Siglip2VisionConfig", {**SMALL, "num_patches": 16, "patch_size": 8}, 32, "does not run on pictures"),
        ("ImageGPTConfig", {"n_embd": 16, "n_layer": 1, "n_head": 1}, 32, "does not run on pictures"),
    ],
)
def test_a_vision_tower_that_cannot_be_used_is_refused(kind, settings, size, expected):
    tower = build_tower(getattr(transformers, kind)(**settings))
    with pytest.raises(ValueError, match=f"mine: .*{expected}"):
        probe_vision(tower, size, "mine")


@pytest.mark.parametrize(
    ("kind", "settings", "expected"),
    [
        (
            "FNetConfig",
            {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48},
            "padding",
        ),
        ("ConvBertConfig", {**WORDS, "embedding_size": 16}, "padding reaches"),
        ("CanineConfig", SMALL, "no word embedding"),
        (
            "MarianConfig",
            {"vocab_size": 99, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "pad_token_id": 0},
            "--text",
        ),
    ],
)
def test_a_text_tower_that_cannot_be_used_is_refused(kind, settings, expected):
    tower = build_tower(getattr(transformers, kind)(**settings))
    with pytest.raises(ValueError, match=f"mine: .*{expected}"):
        probe_text(tower, 30, name="mine")


class Mixing(nn.Module):
    """A vision tower whose tokens depend on the mean of the batch."""

    config, dtype = PreTrainedConfig(), torch.float32

    def __init__(self):
        super().__init__()
        self.linear = nn.Conv2d(3, 8, 8, 8)

    def forward(self, pixel_values):
        hidden = self.linear(pixel_values)
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=hidden - hidden.mean(0))


def test_a_tower_that_mixes_the_pictures_of_a_batch_is_refused():
    with pytest.raises(ValueError, match="depend on the other pictures"):
        probe_vision(Mixing(), 32)


def test_parameters_without_part_in_the_output_are_named_and_statistics_stay():
    tower = build_tower(transformers.XLNetConfig(**TEXT["xlnet"][1]))
    assert "mask_emb" in probe_text(tower, 20).unused
    levit = {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
    assert probe_vision(build_tower(transformers.LevitConfig(key_dim=[8, 8, 8], **levit)), 64).unused == ()


@pytest.mark.parametrize(
    "text",
    [
        GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, n_positions=40),
        LlamaConfig(**WORDS),
        BertConfig(**WORDS),
        RobertaConfig(**OWN_PAD),
    ],
    ids=lambda config: config.model_type,
)
@pytest.mark.parametrize("kind", ["d2s", "pir"])
def test_padding_on_either_side_gives_the_embedding_of_the_caption_alone(kind, text):
    torch.manual_seed(0)
    of = {"vision_config": ViTConfig(**PATCHED), "text_config": text, "projection_dim": 16, "image_size": 32}
    if kind == "d2s":
        model = D2SVSEModel(D2SVSEConfig(**of, num_mask_tokens=4)).eval()
    else:
        model = PIRModel(PIRConfig(**of, use_instruction=False, attention_heads=2)).eval()
        assert model.config.text_readout == ("last" if text.model_type in ("gpt2", "llama") else "first")
    words, pad = torch.tensor([[50, 51, 52]]), torch.full((1, 4), getattr(text, "pad_token_id", None) or 0)
    alone = model(input_ids=words, attention_mask=torch.ones_like(words)).text_embeds
    for ids in (torch.cat([pad, words], 1), torch.cat([words, pad], 1)):
        mask = (ids >= 50).long()
        torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).text_embeds, alone, atol=1e-5, rtol=0)


def test_captions_that_share_their_first_word_differ_under_a_causal_tower():
    torch.manual_seed(0)
    text = GPT2Config(vocab_size=99, n_embd=32, n_layer=2, n_head=2, n_positions=40)
    config = PIRConfig(
        vision_config=ViTConfig(**PATCHED), text_config=text, projection_dim=16, use_instruction=False,
        attention_heads=2, image_size=32, cycles=0,
    )  # fmt: skip
    model = PIRModel(config).eval()
    embeds = model(input_ids=torch.tensor([[50, 51, 52], [50, 61, 62]])).text_embeds
    assert (embeds[0] @ embeds[1]).item() < 0.999


def test_a_tokenizer_that_knows_more_than_the_embedding_is_refused():
    check_vocabulary(range(98), 99)
    with pytest.raises(ValueError, match=r"mine: its tokenizer knows 100 .* 99 rows"):
        check_vocabulary(range(100), 99, "mine")
