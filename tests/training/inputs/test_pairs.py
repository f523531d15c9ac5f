"""Items of training pairs: what they hold, and that nothing but seed, epoch and position decides it."""

import copy

import numpy as np
import pytest
from torch.utils.data import DataLoader

from vsehub.training.inputs.batches import PairCollator
from vsehub.training.inputs.pairs import PairDataset


def test_each_caption_is_an_item_and_captions_of_one_image_share_its_id(rows, tiny_processor):
    data = PairDataset(rows, tiny_processor)
    assert len(data) == 12 and [data[i]["image_id"] for i in range(4)] == [0, 0, 1, 1]
    assert len(PairDataset(rows, tiny_processor, texts="dense_text")) == 6


def test_a_batch_has_what_the_model_and_the_objective_take(rows, tiny_processor, tiny_model):
    data = PairDataset(rows, tiny_processor, with_dense=True)
    batch = PairCollator(tiny_processor)([data[i] for i in (0, 5, 8)])
    assert batch.pixel_values.shape == (3, 3, 32, 32) and batch.image_ids.tolist() == [0, 2, 4]
    assert batch.dense_text_embeds[:, 0].tolist() == [0.0, 2.0, 4.0]
    assert batch.dense_input_ids.shape == batch.dense_attention_mask.shape
    assert tiny_model(**batch.model_inputs()).logits_per_image.shape == (3, 3)


def test_items_follow_from_seed_epoch_and_position_alone(rows, tiny_processor):
    def draw(seed=0, epoch=0, warm=0):
        data = PairDataset(rows, tiny_processor, image_augmentation="crop", text_augmentation=0.5, seed=seed)
        data.set_epoch(epoch)
        for index in range(warm):  # what was asked for before must not matter
            data[index]
        return [(np.asarray(data[i]["image"]).tobytes(), tuple(data[i]["input_ids"])) for i in range(6)]

    assert draw() == draw(warm=5)
    assert draw() != draw(seed=1) and draw() != draw(epoch=1)


def test_workers_that_outlive_an_epoch_show_the_next_ones_draws(rows, tiny_processor):
    data = PairDataset(rows, tiny_processor, text_augmentation=0.5)
    loader = DataLoader(data, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        data.set_epoch(epoch)
        assert [item["input_ids"] for item in loader] == [data[i]["input_ids"] for i in range(len(data))]


def test_long_captions_are_cut_where_asked(rows, tiny_processor):
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.model_max_length = 5
    assert max(len(PairDataset(rows, processor)[i]["input_ids"]) for i in range(12)) == 5


def test_augmentation_without_a_mask_token_is_refused(rows, tiny_processor):
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.mask_token = None
    with pytest.raises(ValueError, match="--text_augmentation 0"):
        PairDataset(rows, processor, text_augmentation=0.2)
