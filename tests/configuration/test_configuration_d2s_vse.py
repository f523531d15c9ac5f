import pytest
from transformers import (
    AutoConfig,
    BertConfig,
    SwinConfig,
)

from vsehub import D2SVSEConfig


def test_the_default_is_the_papers_model():
    config = D2SVSEConfig()
    assert (config.projection_dim, config.num_mask_tokens, config.decoder_layers, config.decoder_heads) == (
        512,
        100,
        4,
        4,
    )
    assert config.vision_config.model_type == "vit" and config.text_config.model_type == "bert"
    assert not config.legacy and config.freeze_vision_batch_norm


def test_a_configuration_survives_its_file(tmp_path):
    config = D2SVSEConfig.from_vision_text_configs(
        SwinConfig(depths=[1, 1]), BertConfig(vocab_size=77), num_mask_tokens=7, token_placement="surround", legacy=True
    )
    config.save_pretrained(tmp_path)
    reread = AutoConfig.from_pretrained(tmp_path)
    assert type(reread) is D2SVSEConfig
    before, after = config.to_dict(), reread.to_dict()
    for where_from in ("_name_or_path", "transformers_version", "dtype"):
        before.pop(where_from, None), after.pop(where_from, None)
    assert after == before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"decoder_heads": 12}, "12 does not divide"),
        ({"decoder_layers": 0}, "must be positive"),
        ({"token_placement": "around"}, "'around'"),
        ({"pooling_dim": 7}, "even"),
        ({"pooling_temperature": 0}, "positive"),
        ({"size_augmentation": 1.0}, "share"),
        ({"text_dropout": -0.1}, "share"),
        ({"projection_dim": 0}, "projection_dim"),
        ({"image_size": -1}, "image_size"),
        ({"logit_scale": 0}, "logit_scale"),
        ({"logit_scale": float("nan")}, "logit_scale must be a positive number, got nan"),
        ({"logit_scale": "20"}, "logit_scale must be a positive number, got '20'"),
        ({"pooling_temperature": float("nan")}, "pooling_temperature must be a positive number"),
        ({"use_decoder": "false"}, "use_decoder must be True or False, got 'false'"),
        ({"projection_dim": 16.0}, "projection_dim must be a whole number"),
        ({"image_size": 32.5}, "image_size must be a whole number"),
        ({"vision_width": 0}, "vision_width must be a whole number of at least 1"),
        ({"decoder_mlp_ratio": 0}, "decoder_mlp_ratio must be a positive number"),
        ({"decoder_mlp_ratio": 1e-4}, "no unit"),
        ({"vision_config": 3}, "vision_config must be the configuration of a tower"),
        ({"vision_config": {"model_type": ["vit"]}}, r"vision_config: .*knows no \['vit'\]"),
        ({"vision_config": {"hidden_size": 8}}, "model_type"),
    ],
)
def test_impossible_numbers_are_refused_with_what_was_given(settings, words):
    with pytest.raises(ValueError, match=words):
        D2SVSEConfig(**settings)


def test_without_decoder_its_numbers_do_not_matter():
    assert not D2SVSEConfig(use_decoder=False, decoder_heads=12).use_decoder
