"""`vsehub convert pir`: what reaches the converter, and what is said of the result."""

REPORT = {
    "source": "checkpoint_best.pth",
    "tensors": 9,
    "parameters": 12_345,
    "dropped": {"temp": 2},
    "published_defaults": ["head"],
    "instruction_weights": "never loaded: random",
    "processor": True,
}


def test_flags_reach_the_converter_and_the_prior_is_told_of(vsehub, vsehub_json, calls):
    made = calls("vsehub.hub_cards.conversion.convert_pir.convert", REPORT)
    said = vsehub(
        "convert", "pir", "checkpoint_best.pth", "out", "--tokenizer", "vocab.txt", "--instruction-config", "i"
    )
    assert made[0][0] == ("checkpoint_best.pth", "out")
    towers = {"vision_config": None, "text_config": None, "instruction_config": "i"}
    assert made[0][1] == {"tokenizer": "vocab.txt", **towers}
    assert "instruction weights: never loaded: random\ntext weights: none" in said
    assert "left out temp (2)" in said and "as published: head" in said and "processor written" in said
    assert vsehub_json("convert", "pir", "a.pth", "out") == REPORT
