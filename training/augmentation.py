"""D2S-VSE's augmentations as its official code has them, drawn from a generator that the caller seeds per item."""

import numpy as np


def random_crop_flip(image, size: int, rng: np.random.Generator, smallest: float = 0.6):
    """Crop both sides by one ratio r ~ U(smallest, 1) at a random place, stretch to a square, flip half the time."""
    from PIL import Image

    ratio = rng.uniform(smallest, 1.0)
    width, height = image.width * ratio, image.height * ratio
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    image = image.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else image


def corrupt_words(ids: list[int], words: list[int | None], rate: float, mask_id: int, vocab_size: int, rng):
    """Select words with probability `rate`; mask 50 % of those, replace 10 % by random tokens, delete 40 %.

    Args:
        ids: token ids of one caption with special tokens.
        words: the word that each token belongs to, None for special tokens (`BatchEncoding.word_ids`).
        rate: paper 0.2.
        mask_id, vocab_size: of the tokenizer.
        rng: a numpy generator.

    Returns:
        The new ids. A caption never loses all its words.
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
