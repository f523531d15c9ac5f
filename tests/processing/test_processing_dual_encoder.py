"""The processor's settings, from one load to the next."""

import copy

from transformers import AutoProcessor

from vsehub import D2SVSEProcessor
from vsehub.processing.processing_dual_encoder import square_image_processor


def test_the_last_limit_cuts_captions_even_if_the_tokenizer_was_used_under_another(tmp_path, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    used = D2SVSEProcessor(square_image_processor(32), tokenizer)
    assert used(text=["a " * 70], return_tensors="pt")["input_ids"].shape == (1, 64)
    tokenizer.model_max_length = 24
    used.save_pretrained(tmp_path / "first")
    once = AutoProcessor.from_pretrained(tmp_path / "first")
    once.save_pretrained(tmp_path / "second")
    for processor in (used, once, AutoProcessor.from_pretrained(tmp_path / "second")):
        assert processor(text=["a " * 70], return_tensors="pt")["input_ids"].shape == (1, 24)
        assert processor(text=["a " * 70], max_length=9, return_tensors="pt")["input_ids"].shape == (1, 9)
