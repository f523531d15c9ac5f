"""Recall by what a caption is like: by its number of words, and by the number of things that it mentions."""

import re

import numpy as np

from .outcomes import Outcomes

WORD = re.compile(r"[^\W\d_]+")
BINS = 5  # of about equally many captions

# English words that name nothing one can see; what is left after them counts as mentioned.
STOP_WORDS = frozenset(
    """a about above across after again against all along also am among an and another any are around as at away back
    be because been before behind being below beneath beside besides between both but by can close could did do does
    doing down during each either few for from front full further get gets getting group had has have having he her
    here hers him his how i if in inside into is it its itself just kind like lot lots many may me middle more most much
    my near next no nor not of off on one onto or other others our out outside over own pair past piece pieces several
    she side so some something such than that the their them then there these they this those through to together top
    toward towards two three four five six seven eight nine ten under underneath until up upon us very was we were what
    when where which while who whose will with within without would you your""".split()
)


def word_count(text: str) -> int:
    """Number of words between spaces."""
    return len(text.split())


def content_words(text: str) -> int:
    """Number of distinct words that are no stop words: roughly, how many things and properties a caption mentions.

    A plural counts as its singular where it only adds an s. Verbs and adjectives count, too: no tagger is used, so the
    number is the same on every machine. The stop words are English; in other languages all words count.
    """
    words = {word for word in WORD.findall(text.lower()) if word not in STOP_WORDS}
    return len({word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] != "s" else word for word in words})


def bins_of(numbers, count: int = BINS) -> list[tuple[int, int]]:
    """Bins (first, last) of whole numbers, both included, with about equally many of them each.

    Every bin holds at least one of the numbers. Fewer bins are made where numbers repeat too often to be divided.
    """
    numbers = np.asarray(numbers)
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, count + 1), method="nearest")).astype(int).tolist()
    if len(edges) == 1:
        return [(edges[0], edges[0])]
    lasts = [edge - 1 for edge in edges[1:-1]] + [edges[-1]]
    return list(zip(edges[:-1], lasts))


def recall_by(outcomes: Outcomes, numbers, ks=(1, 5, 10)) -> list[dict[str, float]]:
    """Text-to-image recalls of the captions in each of `bins_of(numbers)`.

    Args:
        outcomes: of `ranking.image_text_outcomes`.
        numbers: (T,) whole numbers, one for each caption.
        ks: of the recalls.

    Returns:
        For each bin `from`, `to` (both included), `texts` (how many captions) and `recall@k` in per cent.

    Raises:
        ValueError: another number of numbers than of captions, or numbers that are not whole.
    """
    numbers, rows, texts = np.asarray(numbers), [], len(outcomes.images["text_to_image"])
    if numbers.shape != (texts,) or not np.issubdtype(numbers.dtype, np.integer):
        found = f"an array {numbers.shape} of {numbers.dtype}"
        raise ValueError(f"numbers must be {texts} whole numbers, one for each caption, not {found}")
    for first, last in bins_of(numbers):
        inside = (numbers >= first) & (numbers <= last)
        recalls = {f"recall@{k}": float(outcomes.values[f"text_to_image_recall@{k}"][inside].mean()) for k in ks}
        rows.append({"from": first, "to": last, "texts": int(inside.sum()), **recalls})
    return rows


__all__ = ["bins_of", "content_words", "recall_by", "word_count"]
