"""What the configurations of all dual encoders share: towers of any kind, their width, and what is refused."""

import json

import numpy as np
import pytest
from transformers import (
    AutoConfig,
    BertConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    Dinov2Config,
    MobileNetV1Config,
    MobileNetV2Config,
    PreTrainedConfig,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

from vsehub import D2SVSEConfig, PIRConfig
from vsehub.configuration import configuration_dual_encoder as module
from vsehub.configuration.configuration_dual_encoder import refuse_kernels, tower_config, tower_width


@pytest.mark.parametrize("cls", [D2SVSEConfig, PIRConfig])
def test_towers_may_be_configurations_dicts_or_left_out(cls):
    vision, text = ViTConfig(hidden_size=48, num_attention_heads=4), BertConfig(vocab_size=77)
    by_dict = cls(vision_config=vision.to_dict(), text_config=text.to_dict())
    for config in (cls(vision_config=vision, text_config=text), cls.from_vision_text_configs(vision, text), by_dict):
        assert type(config.vision_config) is ViTConfig and config.vision_width == 48
        assert config.text_config.vocab_size == 77
    assert (cls().vision_config.model_type, cls().text_config.model_type) in {("vit", "bert"), ("swin", "bert")}


def test_a_width_that_is_given_wins_over_what_the_tower_says():
    assert D2SVSEConfig(vision_width=7).vision_width == 7


@pytest.mark.parametrize("cls", [D2SVSEConfig, PIRConfig])
def test_numbers_of_numpy_are_saved_as_numbers(cls, tmp_path):
    means = {"image_embeds_mean": list(np.zeros(64)), "text_embeds_mean": list(np.ones(64, np.float32))}
    config = cls(projection_dim=np.int64(64), logit_scale=np.float32(7.5), matryoshka=[np.int32(8)], **means)
    config.image_size = np.int16(96)
    config.save_pretrained(tmp_path)
    loaded = cls.from_pretrained(tmp_path)
    assert (loaded.projection_dim, loaded.logit_scale, loaded.matryoshka, loaded.image_size) == (64, 7.5, [8], 96)
    assert loaded.text_embeds_mean == [1.0] * 64 and "64" in repr(config)


def test_a_tower_that_does_not_say_its_width_is_told_the_argument():
    config = PreTrainedConfig()
    config.model_type = "odd"
    with pytest.raises(ValueError, match="width of a 'odd' vision tower: pass vision_width"):
        tower_width(config)


@pytest.mark.parametrize(
    ("config", "said"),
    [({"hidden_size": 8}, "needs its 'model_type'"), ({"model_type": "nonsense"}, "knows no 'nonsense' as a tower")],
)
def test_a_dict_that_names_no_tower_is_refused(config, said):
    with pytest.raises(ValueError, match=said):
        tower_config(config)


def test_the_cut_off_is_kept_and_one_that_is_none_is_refused(tmp_path):
    facts = {"cosine": 0.25, "rejected": 0.95, "kept": 0.8, "images": 300, "captions": 600, "queries": 140}
    assert D2SVSEConfig().text_cutoff is None
    for kept in (facts, facts | {"cosine": None}):
        PIRConfig(text_cutoff=kept).save_pretrained(tmp_path)
        assert PIRConfig.from_pretrained(tmp_path).text_cutoff == kept
    text = json.loads((tmp_path / "config.json").read_text())
    del text["text_cutoff"]  # as it was written before
    (tmp_path / "config.json").write_text(json.dumps(text))
    assert PIRConfig.from_pretrained(tmp_path).text_cutoff is None
    for wrong in (0.25, [], {}, {"cosine": 0.25}, facts | {"cosine": "0.25"}, facts | {"kept": float("nan")}):
        with pytest.raises(ValueError, match="text_cutoff needs a cosine"):
            D2SVSEConfig(text_cutoff=wrong)


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "org/kernel"},
        {"_attn_implementation_internal": "org/kernel@v1"},
        {"text_config": {"_attn_implementation": "org/kernel"}},
        {"vision_config": {"deep": {"experts_implementation": "org/kernel"}}},
        {"kernel_config": {"a": "b"}},
        {"quantization_config": {"quant_method": "fp8"}},
        {"text_config": {"quantization_config": {"quant_method": "MXFP4"}}},
    ],
    ids=str,
)
def test_a_configuration_that_was_received_asks_for_no_code(settings):
    with pytest.raises(ValueError, match=r"its config.json (asks for code from the Hub|is quantized by)"):
        refuse_kernels(settings)
    with pytest.raises(ValueError, match="its config.json"):
        D2SVSEConfig.from_dict(D2SVSEConfig().to_dict() | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "sdpa"},
        {"_attn_implementation": None, "kernel_config": None},
        {"quantization_config": {"quant_method": "torchao"}},
        {"quantization_config": {"load_in_8bit": True}},
        {"name": "org/name", "text_config": {"_name_or_path": "org/name"}},
    ],
    ids=str,
)
def test_what_runs_only_what_is_installed_passes(settings):
    refuse_kernels(settings)


@pytest.mark.parametrize("cls", [D2SVSEConfig, PIRConfig])
def test_a_saved_configuration_is_read_by_its_type(cls, tmp_path):
    cls(logit_scale=3.5, projection_dim=64).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is cls and (config.logit_scale, config.projection_dim) == (3.5, 64)


@pytest.mark.parametrize("cls", [D2SVSEConfig, PIRConfig])
def test_nested_widths_are_kept_ascending_and_checked(cls, tmp_path):
    cls(projection_dim=64, matryoshka=[32, 8, 64, 8]).save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).matryoshka == [8, 32]
    for widths in (range(8, 33, 24), [np.int64(32), np.int64(8)]):
        assert cls(projection_dim=64, matryoshka=widths).matryoshka == [8, 32]
    old = cls(projection_dim=64).to_dict()
    del old["matryoshka"]  # a configuration of an earlier version
    assert cls.from_dict(old).matryoshka is None
    for widths in ([65], [0], [1.5], [True], ["8"]):
        with pytest.raises(ValueError, match="matryoshka: widths must be whole numbers from 1 to 64, got"):
            cls(projection_dim=64, matryoshka=widths)


@pytest.mark.parametrize("cls", [D2SVSEConfig, PIRConfig])
def test_means_of_the_modalities_are_kept_and_checked(cls, tmp_path):
    means = {"image_embeds_mean": [0.1, 0.2, 0.3, 0.4], "text_embeds_mean": [0.0, 0.5, 0.0, 0.0]}
    sizes = {"projection_dim": 4, **({"decoder_heads": 2} if cls is D2SVSEConfig else {"attention_heads": 2})}
    cls(**sizes, **means).save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert {name: getattr(config, name) for name in means} == means
    saved = json.loads((tmp_path / "config.json").read_text())
    older = cls.from_dict({name: value for name, value in saved.items() if name not in means})
    assert older.image_embeds_mean is None and older.text_embeds_mean is None
    for wrong, said in (
        ({"image_embeds_mean": [0.1] * 3}, "image_embeds_mean must be 4 numbers"),
        ({"text_embeds_mean": [0.1, 0.2, 0.3, float("nan")]}, "text_embeds_mean must be 4 numbers"),
        ({"text_embeds_mean": None}, "go together"),
    ):
        with pytest.raises(ValueError, match=said):
            cls(**sizes, **(means | wrong))


@pytest.mark.parametrize(
    ("config", "width"),
    [
        (ViTConfig(hidden_size=48, num_attention_heads=4), 48),
        (SwinConfig(embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4]), 64),
        (Dinov2Config(hidden_size=48, num_attention_heads=4), 48),
        (ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1]), 16),
        (ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2), 16),
        (CLIPVisionConfig(hidden_size=48), 48),
        (MobileNetV1Config(depth_multiplier=0.25), 256),
        (MobileNetV2Config(depth_multiplier=1.0), 1280),
        (MobileNetV2Config(depth_multiplier=1.4, finegrained_output=False), 1792),
        (MobileNetV2Config(depth_multiplier=0.35, finegrained_output=True), 1280),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_the_towers_width_is_found(config, width):
    assert D2SVSEConfig.from_vision_text_configs(config, BertConfig()).vision_width == width


@pytest.mark.parametrize(
    ("cls", "setting", "said"),
    [
        (D2SVSEConfig, {"token_placement": "sufix"}, "token_placement must be one of"),
        (PIRConfig, {"belief": "softt"}, "belief must be one of"),
        (PIRConfig, {"text_readout": "lst"}, "text_readout must be one of"),
    ],
)
def test_what_is_passed_when_loading_is_checked_as_by_the_constructor(cls, setting, said, tmp_path):
    cls().save_pretrained(tmp_path)
    for load in (cls.from_pretrained, AutoConfig.from_pretrained):
        with pytest.raises(ValueError, match=f"^{said}"):
            load(tmp_path, **setting)
    loaded, unused = AutoConfig.from_pretrained(tmp_path, logit_scale=3, other=4, return_unused_kwargs=True)
    assert loaded.logit_scale == 3 and unused == {"other": 4}


def test_what_follows_from_a_setting_follows_when_loading_too(tmp_path):
    PIRConfig().save_pretrained(tmp_path)
    loaded = PIRConfig.from_pretrained(tmp_path, instruction_layers=0)
    assert not loaded.use_instruction and loaded.instruction_config is None


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"vision_config": 3}, "vision_config must be"),
        ({"text_config": {"model_type": "bert", "hidden_size": "x"}}, "text_config: .*hidden_size"),
        ({"projection_dim": "16"}, "projection_dim must be"),
        ({"projection_dim": None}, "projection_dim must be"),
        ({"logit_scale": "x"}, "logit_scale must be"),
        ({"matryoshka": 3}, "matryoshka must be a list"),
        ({"image_embeds_mean": 3, "text_embeds_mean": 3}, "image_embeds_mean must be 512 numbers"),
    ],
    ids=str,
)
def test_a_config_json_with_a_value_of_a_wrong_type_is_told_its_field(settings, said):
    if "text_config" in settings and transformers_is_lenient():
        pytest.skip("this transformers takes any type")
    with pytest.raises(ValueError, match=f"^in its config.json, {said}") as info:
        D2SVSEConfig.from_dict(D2SVSEConfig().to_dict() | settings)
    assert "\n" not in str(info.value)


def transformers_is_lenient() -> bool:
    try:
        BertConfig(hidden_size="x")
    except Exception:
        return False
    return True


def test_a_setting_that_is_nearly_ours_is_asked_about_and_others_are_kept(monkeypatch):
    told = []
    monkeypatch.setattr(module.logger, "warning", told.append)
    config = D2SVSEConfig(num_mask_token=3, of_a_newer_version=4, is_decoder=False, id2label={0: "a"})
    assert told == ["D2SVSEConfig has no setting 'num_mask_token', so it does nothing: is it 'num_mask_tokens'?"]
    assert config.of_a_newer_version == 4 and D2SVSEConfig.from_dict(config.to_dict()).of_a_newer_version == 4
