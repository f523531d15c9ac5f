"""Rows to training items. What an item looks like follows from (seed, epoch, position) alone, never from a worker."""

import numpy as np
import torch

from ..data.rows import row_image
from ..processing.batching import pad_ids, pad_states
from .augmentation import AUGMENTATIONS, DrawnDataset, corrupt_words
from .teachers import read_teachers
from .tower_cache import Caches
from .views import Views


class PairDataset(DrawnDataset):
    """One item per (image, caption), or per (image, dense text).

    Args:
        rows: prepared rows (`prepare_rows`).
        processor: image processor and tokenizer; its `model_max_length` is the number of tokens that are read.
        texts: `captions` (each caption its own item) or `dense_text` (one item per image).
        image_augmentation: a name of `augmentation.AUGMENTATIONS`.
        text_augmentation: share of words corrupted; needs a tokenizer with a mask token.
        with_dense: also give the dense text of each item, tokenised, for an online teacher.
        caches: of frozen towers; they replace pictures and token ids.
        seed: of all randomness here.

    Items hold `image_id` (an integer row number, the same for captions of one image) and, as the caches and columns
    allow, `image` or `vision_hidden_states` (and `scene_states`), `input_ids` or `text_hidden_states`,
    `dense_text_embeds`, `teacher_image` and `teacher_text`, `scene_label` (the class's number among the sorted names).
    """

    def __init__(
        self,
        rows,
        processor,
        texts: str = "captions",
        image_augmentation: str = "none",
        text_augmentation: float = 0.0,
        with_dense: bool = False,
        caches: Caches | None = None,
        seed: int = 0,
    ):
        super().__init__(seed)
        self.rows, self.processor, self.texts = rows, processor, texts
        self.augment, self.text_augmentation = AUGMENTATIONS[image_augmentation], text_augmentation
        self.caches = caches or Caches()
        if texts == "captions":
            self.items = [(row, i) for row, captions in enumerate(rows["captions"]) for i in range(len(captions))]
        else:
            self.items = [(row, 0) for row in range(len(rows))]
        self.strings = rows["captions"] if texts == "captions" else [[text] for text in rows["dense_text"]]
        self.dense = list(rows["dense_text"]) if with_dense else None
        has_teacher = "dense_text_embeds" in rows.column_names
        self.teacher = torch.tensor(np.asarray(rows["dense_text_embeds"], np.float32)) if has_teacher else None
        names = rows["label"] if "label" in rows.column_names else []
        names = [name or f"image {row}" for row, name in enumerate(names)]  # without a class, one of its own
        numbers = {name: number for number, name in enumerate(sorted(set(names)))}
        self.labels = [numbers[name] for name in names]
        self.teachers = read_teachers(rows) if texts == "captions" else None
        self.views = self._common_views(image_augmentation)
        if text_augmentation and processor.tokenizer.mask_token_id is None:
            raise ValueError("text augmentation needs a tokenizer with a mask token: set --text_augmentation 0")

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict:
        row, caption = self.items[position]
        rng = self.rng(position)
        item, view = {"image_id": row}, 0
        if self.caches.vision is not None:
            view = int(rng.integers(self.caches.vision.views))
            place = row * self.caches.vision.views + view
            item["vision_hidden_states"] = self.caches.vision[place]
            if self.caches.scene is not None:
                item["scene_states"] = self.caches.scene[place][0]
        elif self.views is not None:
            view = int(rng.integers(self.views.count))
            item["image"] = self.views.open(self.rows[row], view, self.side)
        else:
            image = row_image(self.rows[row])
            item["image"] = image if self.augment is None else self.augment(image, self.side, rng)
        if self.caches.text is not None:
            item["text_hidden_states"] = self.caches.text[position]
        else:
            item["input_ids"] = self._tokens(self.strings[row][caption], rng)
        if self.labels:
            item["scene_label"] = self.labels[row]
        if self.teachers is not None:
            views = self.teachers.image[row]
            item["teacher_image"], item["teacher_text"] = views[view % len(views)], self.teachers.text[row][caption]
        if self.teacher is not None:
            item["dense_text_embeds"] = self.teacher[row]
        if self.dense is not None:
            item["dense_input_ids"] = self._tokens(self.dense[row], rng)
        return item

    @property
    def side(self) -> int:
        """Pixels of a training picture's side."""
        return self.processor.image_processor.size["height"]

    def _common_views(self, augmentation: str) -> Views | None:
        """The views that the image teacher saw, where it saw several: the items then show the same ones.

        Raises:
            ValueError: a cache of other views, or another augmentation.
        """
        taught = Views() if self.teachers is None else self.teachers.views
        if taught.count == 1:
            return None
        cache = self.caches.vision
        if augmentation != taught.augmentation or (cache is not None and cache.views not in (1, taught.count)):
            raise ValueError(
                f"the image teacher saw {taught} of each image: train with --image_augmentation "
                f"{taught.augmentation} (and with --cache_vision --cache_views {taught.count} or 1), or make the "
                "teachers' columns again"
            )
        return taught

    def teacher_means(self):
        """Means over the dataset of the image and the text teacher's features, (G_I,) and (G_T,), or None.

        Where the data bring no features, what is there for free stands in: the instruction encoder's scene vectors for
        images, the dense-text embeddings for texts.
        """
        image = text = None
        if self.teachers is not None:
            image = self.teachers.image.float().mean((0, 1))
            text = torch.cat([rows.float() for rows in self.teachers.text]).mean(0)
        elif self.caches.scene is not None:
            image = torch.stack([self.caches.scene[i][0].float() for i in range(len(self.caches.scene))]).mean(0)
        if text is None and self.teacher is not None:
            text = self.teacher.mean(0)
        return image, text

    def _tokens(self, text: str, rng) -> list[int]:
        tokenizer = self.processor.tokenizer
        encoded = tokenizer(text, truncation=True)
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
            for name in ("vision_hidden_states", "scene_states"):
                if name in items[0]:
                    batch[name] = torch.stack([item[name] for item in items]).float()
        if "input_ids" in items[0]:
            batch |= pad_ids(self.processor.tokenizer, [item["input_ids"] for item in items])
        else:
            batch |= pad_states([item["text_hidden_states"] for item in items])
        for name in ("teacher_image", "teacher_text"):
            if name in items[0]:
                batch[name] = torch.stack([item[name] for item in items]).float()
        if "scene_label" in items[0]:
            batch["scene_labels"] = torch.tensor([item["scene_label"] for item in items])
        if "dense_text_embeds" in items[0]:
            batch["dense_text_embeds"] = torch.stack([item["dense_text_embeds"] for item in items])
        if "dense_input_ids" in items[0]:
            dense = pad_ids(self.processor.tokenizer, [item["dense_input_ids"] for item in items])
            batch["dense_input_ids"], batch["dense_attention_mask"] = dense["input_ids"], dense["attention_mask"]
        return batch
