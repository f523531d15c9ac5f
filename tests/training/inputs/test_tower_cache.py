"""Caches of frozen towers: each item's states, and what makes a cache another one."""

import copy

import torch
from transformers import BertTokenizer

from vsehub.training.inputs.pairs import PairDataset
from vsehub.training.inputs.tower_cache import cache_images, cache_text
from vsehub.training.inputs.views import Views


def test_a_tower_cache_gives_each_item_back(rows, tiny_processor, tiny_model, tmp_path):
    tower = (tiny_model, tiny_model.vision_model, tiny_model.vision_tokens, tiny_processor)
    vision = cache_images(*tower, rows, tmp_path, Views(2), batch_size=5)
    pixels = tiny_processor(
        images=[PairDataset(rows, tiny_processor)[2 * i]["image"] for i in range(6)], return_tensors="pt"
    )
    with torch.no_grad():
        expected = tiny_model.vision_tokens(pixels["pixel_values"])
    assert len(vision) == 12
    assert all(torch.allclose(vision[2 * i].float(), expected[i], atol=2e-3) for i in range(6))
    assert not torch.allclose(vision[1].float(), expected[0], atol=1e-1)
    captions = [text for texts in rows["captions"] for text in texts]
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.model_max_length = 7
    text = cache_text(tiny_model, processor, captions, tmp_path, batch_size=5)
    lengths = [min(7, len(tiny_processor.tokenizer(caption)["input_ids"])) for caption in captions]
    assert max(lengths) == 7
    assert [len(text[i]) for i in range(12)] == lengths
    before = sorted(path.name for path in tmp_path.iterdir())
    cache_images(*tower, rows, tmp_path, Views(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == before  # found, not made again
    cache_images(*tower, rows, tmp_path, Views(2, augmentation="rand_augment"))
    assert len(list(tmp_path.iterdir())) == len(before) + 1  # other views are other states


def test_padding_on_the_left_changes_no_cached_state(tiny_model, tiny_processor, tiny_captions, tmp_path):
    right = cache_text(tiny_model, tiny_processor, tiny_captions, tmp_path)
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.padding_side = "left"
    left = cache_text(tiny_model, processor, tiny_captions, tmp_path)
    assert left.path != right.path
    assert all(torch.allclose(left[i], right[i], atol=2e-3) for i in range(len(tiny_captions)))


def test_another_tokenizer_or_another_way_to_resize_makes_other_states(
    rows, tiny_model, tiny_processor, tiny_captions, tmp_path
):
    """A tower's folder may get other files beside the same weights."""
    processor = copy.deepcopy(tiny_processor)
    first = cache_text(tiny_model, processor, tiny_captions, tmp_path)
    tower = (tiny_model, tiny_model.vision_model, tiny_model.vision_tokens, processor)
    pictures = cache_images(*tower, rows, tmp_path)
    processor.image_processor.resample = 3
    assert cache_images(*tower, rows, tmp_path).path != pictures.path
    vocabulary = processor.tokenizer.get_vocab()
    vocabulary["a"], vocabulary["boat"] = vocabulary["boat"], vocabulary["a"]
    processor.tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=64)
    second = cache_text(tiny_model, processor, tiny_captions, tmp_path)
    assert second.path != first.path and not torch.equal(second[1], first[1])
    assert cache_text(tiny_model, processor, tiny_captions, tmp_path).path == second.path
