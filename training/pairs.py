"""Rows to training items. What an item looks like follows from (seed, epoch, position) alone, never from a worker."""

import numpy as np
import torch
from torch.utils.data import Dataset

from ..processing.pixels import open_image
from .augmentation import corrupt_words, random_crop_flip
from .data import image_source


class PairDataset(Dataset):
    """One item per (image, caption), or per (image, dense text).

    Args:
        rows: prepared rows (`prepare_rows`).
        processor: image processor and tokenizer.
        texts: `captions` (each caption its own item) or `dense_text` (one item per image).
        max_length: tokens kept of a text.
        image_augmentation: random crop and flip.
        text_augmentation: share of words corrupted; needs a tokenizer with a mask token.
        with_dense: also give the dense text of each item, tokenised, for an online teacher; its maximum length.
        vision_cache, text_cache: `TowerCache` of frozen towers; they replace pictures and token ids.
        seed: of all randomness here.

    Items hold `image_id` (an integer row number, the same for captions of one image) and, as the caches and columns
    allow, `image` or `vision_hidden_states`, `input_ids` or `text_hidden_states`, `dense_text_embeds`.
    """

    def __init__(
        self,
        rows,
        processor,
        texts: str = "captions",
        max_length: int = 64,
        image_augmentation: bool = False,
        text_augmentation: float = 0.0,
        with_dense: int | None = None,
        vision_cache=None,
        text_cache=None,
        seed: int = 0,
    ):
        self.rows, self.processor, self.texts = rows, processor, texts
        self.max_length, self.with_dense = max_length, with_dense
        self.image_augmentation, self.text_augmentation = image_augmentation, text_augmentation
        self.vision_cache, self.text_cache = vision_cache, text_cache
        self.seed, self.epoch = seed, 0
        if texts == "captions":
            self.items = [(row, i) for row, captions in enumerate(rows["captions"]) for i in range(len(captions))]
        else:
            self.items = [(row, 0) for row in range(len(rows))]
        self.strings = rows["captions"] if texts == "captions" else [[text] for text in rows["dense_text"]]
        self.dense = list(rows["dense_text"]) if with_dense else None
        has_teacher = "dense_text_embeds" in rows.column_names
        self.teacher = torch.tensor(np.asarray(rows["dense_text_embeds"], np.float32)) if has_teacher else None
        if text_augmentation and processor.tokenizer.mask_token_id is None:
            raise ValueError("text augmentation needs a tokenizer with a mask token: set --text_augmentation 0")

    def __len__(self) -> int:
        return len(self.items)

    def set_epoch(self, epoch: int):
        """Choose which draw of the augmentations the items show."""
        self.epoch = epoch

    def __getitem__(self, position: int) -> dict:
        row, caption = self.items[position]
        rng = np.random.default_rng((self.seed, self.epoch, position))
        item = {"image_id": row}
        if self.vision_cache is not None:
            view = int(rng.integers(self.vision_cache.views))
            item["vision_hidden_states"] = self.vision_cache[row * self.vision_cache.views + view]
        else:
            image = open_image(image_source(self.rows[row]["image"]), name=f"image {self.rows[row]['image_id']}")
            if self.image_augmentation:
                image = random_crop_flip(image, self.processor.image_processor.size["height"], rng)
            item["image"] = image
        if self.text_cache is not None:
            item["text_hidden_states"] = self.text_cache[position]
        else:
            item["input_ids"] = self._tokens(self.strings[row][caption], self.max_length, rng)
        if self.teacher is not None:
            item["dense_text_embeds"] = self.teacher[row]
        if self.dense is not None:
            item["dense_input_ids"] = self._tokens(self.dense[row], self.with_dense, rng)
        return item

    def _tokens(self, text: str, max_length: int, rng) -> list[int]:
        tokenizer = self.processor.tokenizer
        encoded = tokenizer(text, truncation=True, max_length=max_length)
        if not self.text_augmentation:
            return encoded["input_ids"]
        return corrupt_words(
            encoded["input_ids"],
            encoded.word_ids(),
            self.text_augmentation,
            tokenizer.mask_token_id,
            len(tokenizer),
            rng,
        )


class PairCollator:
    """Items to one batch of tensors; captions are padded to the longest."""

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """Stack, pad and normalise."""
        batch = {"image_ids": torch.tensor([item["image_id"] for item in items])}
        if "image" in items[0]:
            images = [item["image"] for item in items]
            batch["pixel_values"] = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
        else:
            batch["vision_hidden_states"] = torch.stack([item["vision_hidden_states"] for item in items]).float()
        if "input_ids" in items[0]:
            padded = self._pad([item["input_ids"] for item in items])
            batch["input_ids"], batch["attention_mask"] = padded["input_ids"], padded["attention_mask"]
        else:
            states = [item["text_hidden_states"].float() for item in items]
            batch["text_hidden_states"] = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
            lengths = torch.tensor([len(state) for state in states])
            batch["attention_mask"] = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
        if "dense_text_embeds" in items[0]:
            batch["dense_text_embeds"] = torch.stack([item["dense_text_embeds"] for item in items])
        if "dense_input_ids" in items[0]:
            dense = self._pad([item["dense_input_ids"] for item in items])
            batch["dense_input_ids"], batch["dense_attention_mask"] = dense["input_ids"], dense["attention_mask"]
        return batch

    def _pad(self, ids: list[list[int]]):
        return self.processor.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
