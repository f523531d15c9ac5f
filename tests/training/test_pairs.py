import copy
import io

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from vsehub.training.augmentation import corrupt_words, random_crop_flip
from vsehub.training.batches import PairCollator
from vsehub.training.pairs import PairDataset
from vsehub.training.views import Views

IDS = [2, 10, 11, 12, 13, 14, 15, 3]
WORDS = [None, 0, 0, 1, 2, 3, 4, None]  # the first word has two pieces


@pytest.fixture
def rows(tiny_pictures, tiny_captions):
    def encoded(picture):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    return Dataset.from_list(
        [
            {
                "image": encoded(picture),
                "captions": [caption, "a dog"],
                "image_id": f"id-{index}",
                "dense_text": f"{caption} and a dog",
                "dense_text_embeds": [float(index)] * 4,
            }
            for index, (picture, caption) in enumerate(zip(tiny_pictures, tiny_captions))
        ]
    )


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


def test_crops_keep_the_square_and_the_ratio():
    from PIL import Image

    picture = Image.fromarray(np.arange(64 * 48 * 3, dtype=np.uint8).reshape(48, 64, 3))
    rng = np.random.default_rng(0)
    assert all(random_crop_flip(picture, 24, rng).size == (24, 24) for _ in range(20))
    whole = random_crop_flip(Image.new("RGB", (10, 10), (9, 9, 9)), 24, rng)
    assert (np.asarray(whole) == 9).all()


def test_word_corruption_masks_half_replaces_a_tenth_and_deletes_the_rest():
    rng = np.random.default_rng(0)
    words = [None, *range(1000), None]
    ids = [2, *[500] * 1000, 3]
    counts = {"mask": 0, "replace": 0, "delete": 0}
    for _ in range(50):
        new = corrupt_words(ids, words, 0.2, 4, 100, rng)
        assert new[0] == 2 and new[-1] == 3
        counts["mask"] += new.count(4)
        counts["delete"] += len(ids) - len(new)
        counts["replace"] += sum(token not in (2, 3, 4, 500) for token in new)
    shares = {name: count / 50_000 for name, count in counts.items()}
    assert shares == pytest.approx({"mask": 0.1, "replace": 0.02, "delete": 0.08}, abs=0.005)


def test_all_pieces_of_a_word_share_its_fate_and_a_caption_never_vanishes():
    rng = np.random.default_rng(1)
    for _ in range(300):
        new = corrupt_words(IDS, WORDS, 0.5, 4, 10, rng)  # a vocabulary of 10: random tokens are none of these
        assert (10 in new) == (11 in new)
        assert len(new) > 2
    for _ in range(100):
        assert len(corrupt_words([2, 10, 3], [None, 0, None], 1.0, 4, 100, rng)) > 2


def test_augmentation_without_a_mask_token_is_refused(rows, tiny_processor):
    processor = copy.deepcopy(tiny_processor)
    processor.tokenizer.mask_token = None
    with pytest.raises(ValueError, match="--text_augmentation 0"):
        PairDataset(rows, processor, text_augmentation=0.2)


def test_a_tower_cache_gives_each_item_back(rows, tiny_processor, tiny_model, tmp_path):
    from vsehub.training.tower_cache import cache_images, cache_text

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
