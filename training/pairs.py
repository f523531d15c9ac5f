"""Rows to training items. An item follows from (seed, epoch, position) alone, never from a worker."""

from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ..data.rows import row_image
from ..processing.processing_dual_encoder import DualEncoderProcessor
from .augmentation import AUGMENTATIONS, DrawnDataset, corrupt_words
from .dense_teacher import DENSE_TEXT_EMBEDS
from .sentences import drawn, sentences
from .structure_teachers import StructureTeachers
from .teacher_columns import teacher_views
from .tower_cache import Caches
from .views import Views
from .workers import Loading


class PairDataset(DrawnDataset):
    """One item per (image, caption), or per (image, dense text).

    Args:
        rows: prepared rows (`prepare_rows`).
        processor: image processor and tokenizer; its `model_max_length` is the number of tokens that are read.
        texts: `captions` (each caption its own item) or `dense_text` (one item per image).
        image_augmentation: a name of `augmentation.AUGMENTATIONS`.
        text_augmentation: share of words corrupted; needs a tokenizer with a mask token.
        dense_sampling: of a dense text, read some of its sentences in random order.
        with_dense: also give the dense text of each item, tokenised, for a dense teacher that reads it in each step.
        with_teachers: also give the features of the image and the text teacher, for structure-aware distillation.
        caches: of frozen towers; they replace pictures and token ids.
        seed: of all randomness here.

    Items are dictionaries of `image_id` (an integer row number, the same for captions of one image) and, as the
    arguments, caches and columns say, `image` or `vision_hidden_states` (or, for a tower that is trained from a block
    on, `pixel_values`: what enters the block) and `scene_states`, `input_ids` or
    `text_hidden_states`, `scene_label` (the class's number among the sorted names), `image_teacher` and
    `text_teacher`, `dense_text_embeds`, `dense_input_ids`.
    """

    def __init__(
        self,
        rows: Dataset,
        processor: DualEncoderProcessor,
        texts: str = "captions",
        image_augmentation: str = "none",
        text_augmentation: float = 0.0,
        dense_sampling: bool = False,
        with_dense: bool = False,
        with_teachers: bool = False,
        caches: Caches | None = None,
        seed: int = 0,
    ):
        super().__init__(seed)
        if text_augmentation and processor.tokenizer.mask_token_id is None:
            raise ValueError("text augmentation needs a tokenizer with a mask token: set --text_augmentation 0")
        self.rows, self.processor = rows, processor
        self.augment, self.text_augmentation = AUGMENTATIONS[image_augmentation], text_augmentation
        self.caches = caches or Caches()
        self.loading = Loading()
        if texts == "captions":
            self.strings = list(rows["captions"])  # a column of datasets would select its table again for each item
            self.items = [(row, i) for row, captions in enumerate(rows["captions"]) for i in range(len(captions))]
            self.views = _common_views(teacher_views(rows), image_augmentation, self.caches)
        else:
            self.strings = [[text] for text in rows["dense_text"]]
            self.items = [(row, 0) for row in range(len(rows))]
            self.views = None
        self.sentences = None
        if dense_sampling and texts == "dense_text":
            self.sentences = [sentences(text) for text in rows["dense_text"]]
            self.first_sentence = np.cumsum([0, *map(len, self.sentences)])
        self.dense_texts = list(rows["dense_text"]) if with_dense else None
        self.dense_text_embeds = None
        if DENSE_TEXT_EMBEDS in rows.column_names:
            self.dense_text_embeds = torch.tensor(np.asarray(rows[DENSE_TEXT_EMBEDS], np.float32))
        self.labels = _label_numbers(rows["label"]) if "label" in rows.column_names else None
        self.teachers = None
        if with_teachers:
            self.teachers = StructureTeachers(rows, self.caches.scene, self.dense_text_embeds)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> dict:
        with self.loading.of(position):
            try:
                return self._item(position)
            except Exception as error:  # whatever a decoder or a tokenizer raises
                raise ValueError(f"{self.name_of(position)} cannot be loaded: {error}") from error

    def name_of(self, position: int) -> str:
        """What a user calls an item."""
        row = self.items[position][0]
        name = f" ({self.rows[row]['image_id']})" if "image_id" in self.rows.column_names else ""
        return f"row {row}{name}"

    def _item(self, position: int) -> dict:
        row, caption = self.items[position]
        rng = self.rng(position)
        item: dict[str, Any] = {"image_id": row}
        view = 0
        if self.caches.vision is not None:
            view = int(rng.integers(self.caches.vision.views))
            place = row * self.caches.vision.views + view
            item[self.caches.vision_input] = self.caches.vision[place]
            if self.caches.scene is not None:
                item["scene_states"] = self.caches.scene[place][0]
        elif self.views is not None:
            view = int(rng.integers(self.views.count))
            item["image"] = self.views.open(self.rows[row], view, self.side)
        else:
            image = row_image(self.rows[row])
            item["image"] = image if self.augment is None else self.augment(image, self.side, rng)
        if self.sentences is not None:
            item |= self._some_sentences(row, rng)
        elif self.caches.text is not None:
            item["text_hidden_states"] = self.caches.text[position]
        else:
            item["input_ids"] = self._tokens(self.strings[row][caption], rng)
        if self.labels is not None:
            item["scene_label"] = self.labels[row]
        if self.teachers is not None:
            item["image_teacher"] = self.teachers.image(row, view)
            item["text_teacher"] = self.teachers.text(row, caption)
        if self.dense_text_embeds is not None:
            item["dense_text_embeds"] = self.dense_text_embeds[row]
        if self.dense_texts is not None:
            item["dense_input_ids"] = self._tokens(self.dense_texts[row], rng)
        return item

    def _some_sentences(self, row: int, rng: np.random.Generator) -> dict[str, Any]:
        """The text of a dense item: sentences of its row; cached ones were read one by one, and their states joined."""
        places = drawn(len(self.sentences[row]), rng)
        if self.caches.text is None:
            return {"input_ids": self._tokens(" ".join(self.sentences[row][place] for place in places), rng)}
        first = self.first_sentence[row]
        return {"text_hidden_states": torch.cat([self.caches.text[first + place] for place in places])}

    @property
    def side(self) -> int:
        """Pixels of a training picture's side."""
        return self.processor.image_processor.size["height"]

    def _tokens(self, text: str, rng: np.random.Generator) -> list[int]:
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


def _label_numbers(names: list[str | None]) -> list[int]:
    """Number the scene classes in the order of their names; an image without one is a class of its own."""
    names = [name or f"image {row}" for row, name in enumerate(names)]
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    return [numbers[name] for name in names]


def _common_views(taught: Views, augmentation: str, caches: Caches) -> Views | None:
    """The views that the items show because the image teacher saw them; None where it saw only the plain image.

    Raises:
        ValueError: a cache of other views, or another augmentation.
    """
    if taught.count == 1:
        return None
    cached = caches.vision
    if augmentation != taught.augmentation or (cached is not None and cached.views not in (1, taught.count)):
        raise ValueError(
            f"the image teacher saw {taught} of each image: train with --image_augmentation {taught.augmentation} "
            f"(and with --cache_vision --cache_views {taught.count} or 1), or run `vsehub teachers` again"
        )
    return taught


__all__ = ["PairDataset"]
