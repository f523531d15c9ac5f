import pytest
from transformers import (
    AutoConfig,
    BertConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    ResNetConfig,
    SiglipTextConfig,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
)

from vsehub import PIRConfig

RESNET = {"model_type": "resnet", "hidden_sizes": [8], "depths": [1], "embedding_size": 8}


def test_the_default_is_the_papers_model():
    config = PIRConfig()
    assert (config.projection_dim, config.attention_heads, config.dropout) == (512, 8, 0.2)
    assert (config.filter_size, config.instruction_layers, config.cycles) == (40, 2, 3)
    towers = (config.vision_config, config.text_config, config.instruction_config)
    assert [tower.model_type for tower in towers] == ["swin", "bert", "resnet"]
    assert (config.vision_config.embed_dim, [*config.vision_config.depths]) == (96, [2, 2, 6, 2])  # Swin-T
    assert (config.instruction_config.layer_type, config.instruction_config.depths) == ("bottleneck", [3, 4, 6, 3])
    assert (config.belief, config.tel_norm, config.text_readout) == ("hard", "sum", "first")
    assert not config.legacy and config.use_instruction and config.vision_prefix_tokens == 0


@pytest.mark.parametrize(
    "settings", [{}, {"use_instruction": False}, {"instruction_layers": 0, "cycles": 0}], ids=["PIR", "TEL", "baseline"]
)
def test_a_configuration_survives_its_file(tmp_path, settings):
    config = PIRConfig.from_vision_text_configs(
        ViTConfig(num_hidden_layers=1),
        BertConfig(vocab_size=77),
        instruction_config=RESNET,
        filter_size=7,
        belief="soft",
        tel_norm="branch",
        text_readout="last",
        instruction_scale=[1.5, 1.0, 0.5],
        instruction_shift=[0.1, 0.0, -0.1],
        legacy=True,
        **settings,
    )
    config.save_pretrained(tmp_path)
    reread = AutoConfig.from_pretrained(tmp_path)
    assert type(reread) is PIRConfig
    before, after = config.to_dict(), reread.to_dict()
    for where_from in ("_name_or_path", "transformers_version", "dtype"):
        before.pop(where_from, None), after.pop(where_from, None)
    assert after == before
    assert (reread.instruction_config is None) is bool(settings)
    assert reread.use_instruction is not bool(settings)


@pytest.mark.parametrize(
    ("config", "prefix"),
    [
        (ViTConfig(), 1),
        (CLIPVisionConfig(), 1),
        (Dinov2Config(), 1),
        (DeiTConfig(), 2),
        (Dinov2WithRegistersConfig(num_register_tokens=4), 5),
        (SwinConfig(), 0),
        (ResNetConfig(), 0),
        (SiglipVisionConfig(), 0),
    ],
    ids=lambda value: getattr(value, "model_type", str(value)),
)
def test_the_tokens_before_the_patches_are_known_and_can_be_given(config, prefix):
    found = PIRConfig.from_vision_text_configs(config, BertConfig(), instruction_config=config.to_dict())
    assert (found.vision_prefix_tokens, found.instruction_prefix_tokens) == (prefix, prefix)
    given = PIRConfig(config, instruction_config=config, vision_prefix_tokens=0, instruction_prefix_tokens=3)
    assert (given.vision_prefix_tokens, given.instruction_prefix_tokens) == (0, 3)


@pytest.mark.parametrize(
    ("config", "place"), [(BertConfig(), "first"), (CLIPTextConfig(), "last"), (SiglipTextConfig(), "last")]
)
def test_where_a_text_is_read_follows_from_its_tower(config, place):
    assert PIRConfig(text_config=config).text_readout == place
    assert PIRConfig(text_config=config, text_readout="first").text_readout == "first"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"belief": "firm"}, "belief must be one of"),
        ({"tel_norm": "none"}, "tel_norm must be one of"),
        ({"text_readout": "middle"}, "'middle'"),
        ({"instruction_layers": -1}, "instruction_layers must be a whole number of at least 0"),
        ({"cycles": -1}, "cycles must be a whole number of at least 0"),
        ({"filter_size": 0}, "filter_size must be a whole number of at least 1"),
        ({"attention_heads": 12}, "12 does not divide"),
        ({"attention_heads": 0}, "attention_heads"),
        ({"dropout": 1.0}, "share"),
        ({"dropout": -0.1}, "share"),
        ({"instruction_scale": [1.0, 1.0, 1.0]}, "come together"),
        ({"instruction_scale": [1, 2], "instruction_shift": [0, 0, 0]}, "instruction_scale must be three numbers"),
        ({"use_instruction": "false"}, "use_instruction must be True or False"),
        ({"instruction_width": 0}, "instruction_width must be a whole number of at least 1"),
        ({"instruction_config": 3}, "instruction_config must be the configuration"),
        ({"instruction_shift": [0.0, 0.0, 0.0]}, "come together"),
        ({"projection_dim": 0}, "projection_dim"),
        ({"image_size": -1}, "image_size"),
        ({"logit_scale": 0}, "logit_scale"),
        ({"vision_config": {"hidden_size": 8}}, "model_type"),
        ({"instruction_config": {"hidden_sizes": [8]}}, "model_type"),
    ],
)
def test_impossible_numbers_are_refused_with_what_was_given(settings, words):
    with pytest.raises(ValueError, match=words):
        PIRConfig(**settings)


def test_without_layers_that_it_could_instruct_there_is_no_instruction_encoder():
    config = PIRConfig(instruction_layers=0, instruction_config=RESNET)
    assert not config.use_instruction and config.instruction_config is None
    assert config.instruction_prefix_tokens is None
