"""Rows to training items. An item follows from (seed, epoch, position) alone, never from a worker."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ...data.columns import PART, list_lengths
from ...data.rows import SOURCE_ROW, row_image
from ...processing.pixels import BadImageError
from ...processing.processing_dual_encoder import DualEncoderProcessor
from ..processes.workers import Loading
from .augmentation import AUGMENTATIONS, DrawnDataset, corrupt_words
from .bad_pictures import REMEDY, BadPictures, replacements
from .dense_teacher import DENSE_TEXT_EMBEDS
from .sentences import drawn, sentences
from .structure_teachers import StructureTeachers
from .teacher_columns import teacher_views
from .tower_cache import Caches
from .views import Views


class Pairs(DrawnDataset):
    """What every source of training items has: words that are corrupted, and rows whose picture cannot be read."""

    def __init__(
        self,
        processor: DualEncoderProcessor,
        texts: str = "captions",
        image_augmentation: str = "none",
        text_augmentation: float = 0.0,
        dense_sampling: bool = False,
        with_dense: bool = False,
        seed: int = 0,
        bad_pictures: BadPictures | None = None,
    ):
        super().__init__(seed)
        if text_augmentation and processor.tokenizer.mask_token_id is None:
            raise ValueError("text augmentation needs a tokenizer with a mask token: set --text_augmentation 0")
        self.processor, self.texts, self.with_dense = processor, texts, with_dense
        self.dense_sampling = dense_sampling and texts == "dense_text"
        self.augment, self.text_augmentation = AUGMENTATIONS[image_augmentation], text_augmentation
        self.loading, self.bad_pictures = Loading(), bad_pictures or BadPictures()

    def __getitem__(self, position: int) -> dict:
        with self.loading.of(position):
            try:
                key = self._key(position)
                return self.bad_pictures.item(key, self._others(key), self._item, self._row)
            except Exception as error:  # whatever a decoder or a tokenizer raises
                remedy = REMEDY if isinstance(error, BadImageError) else ""
                raise ValueError(f"{self.name_of(position)} cannot be loaded: {error}{remedy}") from error

    def _key(self, position: int) -> Any:
        """What `_item` and `_row` go by."""
        return position

    def _others(self, key: Any) -> Iterator:
        """Keys of items that may take the place of one whose picture cannot be read."""
        return replacements(self, key)

    @property
    def side(self) -> int:
        """Pixels of a training picture's side."""
        return self.processor.image_processor.size["height"]

    def _sampled(self, dense_text: str, rng: np.random.Generator) -> list[int]:
        parts = sentences(dense_text)
        return self._tokens(" ".join(parts[place] for place in drawn(len(parts), rng)), rng)

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


class PairDataset(Pairs):
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
        bad_pictures: what becomes of an item whose picture cannot be read; by default, an error.

    Items are dictionaries. Which keys they have follows from the arguments, caches and columns:

    - `image_id`: a row number, the same for captions of one image;
    - `image`, or of a cached tower `vision_hidden_states` (`pixel_values` where the cache holds what enters the first
      trained block) and `scene_states`;
    - `input_ids`, or of a cached tower `text_hidden_states`;
    - `scene_label`: the class's number among the sorted names;
    - `image_teacher` and `text_teacher`; `dense_text_embeds`; `dense_input_ids`.
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
        bad_pictures: BadPictures | None = None,
    ):
        super().__init__(
            processor, texts, image_augmentation, text_augmentation, dense_sampling, with_dense, seed, bad_pictures
        )
        self.rows, self.caches = rows, caches or Caches()
        if texts == "captions":
            self.ends = np.cumsum(list_lengths(rows, "captions"))
            self.views = _common_views(teacher_views(rows), image_augmentation, self.caches)
        else:
            self.ends = np.arange(1, len(rows) + 1)
            self.views = None
        if self.dense_sampling and self.caches.text is not None:
            counts = (
                len(sentences(text))
                for part in rows.select_columns(["dense_text"]).iter(PART)
                for text in part["dense_text"]
            )
            self.first_sentence = np.cumsum([0, *counts])
        read = ["image_id", "bands", SOURCE_ROW]  # for an item; teachers' features are slow to read again and again
        read += [name for name, cache in (("image", self.caches.vision), (texts, self.caches.text)) if cache is None]
        read += ["dense_text"] if with_dense and texts != "dense_text" else []
        self.read = rows.select_columns([name for name in read if name in rows.column_names])
        self.dense_text_embeds = None
        if DENSE_TEXT_EMBEDS in rows.column_names:
            self.dense_text_embeds = torch.tensor(np.asarray(rows[DENSE_TEXT_EMBEDS], np.float32))
        self.labels = _label_numbers(rows) if "label" in rows.column_names else None
        self.teachers = None
        if with_teachers:
            self.teachers = StructureTeachers(rows, self.caches.scene, self.dense_text_embeds)

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def name_of(self, position: int) -> str:
        """What a user calls an item."""
        row = self._row(position)
        name = f" ({row['image_id']})" if "image_id" in row else ""
        return f"row {row[SOURCE_ROW]}{name}"

    def _place(self, position: int) -> tuple[int, int]:
        """Row and caption of an item."""
        if not 0 <= position < len(self):
            raise IndexError(f"item {position} of {len(self)}")
        row = int(np.searchsorted(self.ends, position, side="right"))
        return row, position - int(self.ends[row - 1] if row else 0)

    def _row(self, position: int) -> dict:
        row = self._place(position)[0]
        return {SOURCE_ROW: row, **self.read[row]}

    def _item(self, position: int) -> dict:
        row, caption = self._place(position)
        read = self.read[row]
        rng = self.rng(position)
        item: dict[str, Any] = {"image_id": row}
        whole = self.texts == "dense_text"
        view = 0
        if self.caches.vision is not None:
            view = int(rng.integers(self.caches.vision.views))
            place = row * self.caches.vision.views + view
            item[self.caches.vision_input] = self.caches.vision[place]
            if self.caches.scene is not None:
                item["scene_states"] = self.caches.scene[place][0]
        elif self.views is not None:
            view = int(rng.integers(self.views.count))
            item["image"] = self.views.open(read, view, self.side)
        else:
            image = row_image(read)
            item["image"] = image if self.augment is None else self.augment(image, self.side, rng)
        if self.dense_sampling:
            item |= self._some_sentences(row, read, rng)
        elif self.caches.text is not None:
            item["text_hidden_states"] = self.caches.text[position]
        else:
            item["input_ids"] = self._tokens(read[self.texts] if whole else read[self.texts][caption], rng)
        if self.labels is not None:
            item["scene_label"] = int(self.labels[row])
        if self.teachers is not None:
            item["image_teacher"] = self.teachers.image(row, view)
            item["text_teacher"] = self.teachers.text(row, caption)
        if self.dense_text_embeds is not None:
            item["dense_text_embeds"] = self.dense_text_embeds[row]
        if self.with_dense:
            item["dense_input_ids"] = self._tokens(read["dense_text"], rng)
        return item

    def _some_sentences(self, row: int, read: dict, rng: np.random.Generator) -> dict[str, Any]:
        """The text of a dense item: sentences of its row; cached ones were read one by one, and their states joined."""
        if self.caches.text is None:
            return {"input_ids": self._sampled(read["dense_text"], rng)}
        first, end = self.first_sentence[row : row + 2]
        places = drawn(int(end - first), rng)
        return {"text_hidden_states": torch.cat([self.caches.text[first + place] for place in places])}


def _label_numbers(rows: Dataset) -> np.ndarray:
    """Number the scene classes in the order of their names; an image without one is a class of its own."""
    seen: dict[str, int] = {}  # in order of appearance
    numbers = np.empty(len(rows), np.int64)
    labels = (name for part in rows.select_columns(["label"]).iter(PART) for name in part["label"])
    for row, name in enumerate(labels):
        numbers[row] = seen.setdefault(name or f"image {row}", len(seen))
    ranks = np.empty(len(seen), np.int64)
    ranks[[seen[name] for name in sorted(seen)]] = np.arange(len(seen))
    return ranks[numbers]


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


__all__ = ["PairDataset", "Pairs"]
