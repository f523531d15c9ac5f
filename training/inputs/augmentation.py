"""The augmentations of the papers' code; the caller passes a random generator that is seeded for each item."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from PIL import Image


class DrawnDataset(Dataset):
    """A dataset whose items depend on (seed, epoch, position) alone.

    The epoch is in shared memory: otherwise, workers that live for several epochs would repeat the first one's draws.
    """

    def __init__(self, seed: int):
        self.seed, self._epoch = seed, torch.zeros(1, dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch whose draws the items show."""
        return int(self._epoch)

    def set_epoch(self, epoch: int):
        """Choose the epoch whose draws the items show."""
        self._epoch.fill_(epoch)

    def rng(self, position: int) -> np.random.Generator:
        """The random generator of an item."""
        return np.random.default_rng((self.seed, self.epoch, position))


def random_crop_flip(image: "Image.Image", size: int, rng: np.random.Generator, smallest: float = 0.6) -> "Image.Image":
    """Crop both sides by one ratio r ~ U(smallest, 1) at a random place, stretch to a square, flip half the time."""
    from PIL import Image

    ratio = rng.uniform(smallest, 1.0)
    width, height = image.width * ratio, image.height * ratio
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def crop_and_distort(image: "Image.Image", size: int, rng: np.random.Generator, smallest: float = 0.5) -> "Image.Image":
    """PIR's recipe: crop a random area (share U(smallest, 1), aspect 3/4 to 4/3), flip half the time, RandAugment."""
    from PIL import Image

    box = _random_area(image.width, image.height, smallest, rng)
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image
    return rand_augment(image, rng)


def _random_area(
    width: int, height: int, smallest: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Draw a box (left, top, right, bottom); the whole image if ten draws do not fit into it."""
    for _ in range(10):
        area = width * height * rng.uniform(smallest, 1.0)
        aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        wide, high = (area * aspect) ** 0.5, (area / aspect) ** 0.5
        if wide <= width and high <= height:
            left, top = rng.uniform(0, width - wide), rng.uniform(0, height - high)
            return (left, top, left + wide, top + high)
    return (0.0, 0.0, float(width), float(height))


def rand_augment(
    image: "Image.Image", rng: np.random.Generator, operations: int = 2, magnitude: int = 7
) -> "Image.Image":
    """RandAugment (Cubuk et al., 2020) as PIR sets it: two of ten operations at level 7 of 10, each with chance 1/2.

    At that level: enhancement factor 1.36, shear 0.21, shift 7 pixels, rotation 21 degrees; uncovered pixels are grey.
    """
    from PIL import Image, ImageEnhance, ImageOps

    level = magnitude / 10
    sign = 1 if rng.random() < 0.5 else -1
    move = {
        "shear_x": (1, 0.3 * level * sign, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, 0.3 * level * sign, 1, 0),
        "translate_x": (1, 0, 10 * level * sign, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, 10 * level * sign),
    }
    names = ("identity", "auto_contrast", "equalize", "brightness", "sharpness", "rotate", *move)
    for name in rng.choice(names, operations):
        if rng.random() >= 0.5:
            continue
        if name in move:
            grey = (128, 128, 128)
            image = image.transform(
                image.size, Image.Transform.AFFINE, move[name], Image.Resampling.BILINEAR, fillcolor=grey
            )
        elif name == "rotate":
            image = image.rotate(30 * level * sign, Image.Resampling.BILINEAR, fillcolor=(128, 128, 128))
        elif name == "auto_contrast":
            image = ImageOps.autocontrast(image)
        elif name == "equalize":
            image = ImageOps.equalize(image)
        elif name in ("brightness", "sharpness"):
            enhancer = ImageEnhance.Brightness if name == "brightness" else ImageEnhance.Sharpness
            image = enhancer(image).enhance(0.1 + 1.8 * level)
    return image


AUGMENTATIONS = {"none": None, "crop": random_crop_flip, "rand_augment": crop_and_distort}


def corrupt_words(
    ids: list[int],
    words: list[int | None],
    rate: float,
    mask_id: int,
    vocab_size: int,
    rng: np.random.Generator,
) -> list[int]:
    """Select words with probability `rate`; mask 50 % of those, replace 10 % by random tokens, delete 40 %.

    Args:
        ids: token ids of one caption with special tokens.
        words: the word that each token belongs to, None for special tokens (`BatchEncoding.word_ids`).
        rate: paper 0.2.
        mask_id, vocab_size: of the tokenizer.
        rng: a random generator.

    Returns:
        The new ids; the old ones if no word would be left.
    """
    actions = {}
    for word in dict.fromkeys(w for w in words if w is not None):
        draw = rng.random()
        if draw < rate:
            share = draw / rate
            actions[word] = "mask" if share < 0.5 else "replace" if share < 0.6 else "delete"
    kept = []
    for token, word in zip(ids, words):
        action = actions.get(word) if word is not None else None
        if action == "mask":
            kept.append(mask_id)
        elif action == "replace":
            kept.append(int(rng.integers(vocab_size)))
        elif action is None:
            kept.append(token)
    survived = len(kept) > sum(word is None for word in words)
    return kept if survived else list(ids)
