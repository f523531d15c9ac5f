"""Caches of frozen towers."""

import copy

import torch

from vsehub.training.tower_cache import cache_text


def test_padding_on_the_left_changes_no_cached_state(tiny_model, tiny_processor, tiny_captions, tmp_path):
    right = cache_text(tiny_model, tiny_processor, tiny_captions, tmp_path)
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.padding_side = "left"
    left = cache_text(tiny_model, processor, tiny_captions, tmp_path)
    assert left.path != right.path
    assert all(torch.allclose(left[i], right[i], atol=2e-3) for i in range(len(tiny_captions)))
