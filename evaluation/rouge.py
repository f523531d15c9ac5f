"""ROUGE-L between captions, used as graded relevance: as TERN defines it, or as the package `rouge_score` does.

Sources: Lin, ROUGE, 2004; Messina et al., TERN, ICPR 2020. rapidfuzz computes the common subsequences.
"""

import re

import numpy as np

from . import counting

LONGEST = 100_000  # words of a caption; comparing two of this length takes a second, and time grows quadratically


def load_rapidfuzz():
    """The measure and the function of rapidfuzz that are used.

    Raises:
        ImportError: it is not installed; the message names the extra.
    """
    try:
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cdist
    except ImportError:
        raise ImportError('ROUGE-L relevance needs rapidfuzz: pip install "vsehub[graded]"') from None
    return LCSseq, cdist


def rouge_l_relevance(
    captions: list[list[str]], beta: float = 1.2, variant: str = "tern", dtype=np.float32
) -> np.ndarray:
    """ROUGE-L of every caption against every image's set of captions, (T, N) in [0, 1].

    Args:
        captions: of each image.
        beta: weight of recall in TERN's F.
        variant: `tern`: lower case, words at spaces; precision is the best common subsequence over the caption's
            length, recall the best over a reference's length (perhaps another one), F combines them with weight beta.
            `rouge_score`: lower case, words are runs of a-z and 0-9, no stemming; the best F1 over the references, as
            that package computes it.
        dtype: of the result; with float64, 25,000 x 5,000 take 1 GB.

    Raises:
        ImportError: without rapidfuzz.
        ValueError: another variant, or a caption of more than `LONGEST` words.
    """
    subsequence, cdist = load_rapidfuzz()
    if variant not in ("tern", "rouge_score"):
        raise ValueError(f"the variants of ROUGE-L are tern and rouge_score, not {variant!r}")
    words = str.split if variant == "tern" else re.compile("[a-z0-9]+").findall
    numbers: dict[str, int] = {}
    letters = [  # each word becomes one character, so that the library's fast code for strings is used
        "".join(chr(0x100 + numbers.setdefault(word, len(numbers))) for word in words(text.lower()))
        for several in captions
        for text in several
    ]
    if max(map(len, letters), default=0) > LONGEST:
        raise ValueError(f"a caption has {max(map(len, letters)):,} words, more than {LONGEST:,}: shorten it")
    lengths = np.array([max(1, len(text)) for text in letters], np.float64)
    starts = np.cumsum([0, *(len(several) for several in captions)])[:-1]
    relevance = np.empty((len(letters), len(captions)), dtype)
    step = max(1, counting.SCORES_AT_ONCE // (4 * max(1, len(letters))))
    for start in range(0, len(letters), step):
        part = slice(start, start + step)
        common = cdist(letters[part], letters, scorer=subsequence.similarity, dtype=np.uint32)  # (b, T)
        if variant == "rouge_score":  # F1 = 2 common / (one length + other length); empty texts have nothing in common
            relevance[part] = np.maximum.reduceat(2 * common / (lengths[part, None] + lengths), starts, axis=1)
            continue
        precision = np.maximum.reduceat(common, starts, axis=1) / lengths[part, None]
        recall = np.maximum.reduceat(common / lengths, starts, axis=1)
        below = recall + beta**2 * precision
        relevance[part] = (1 + beta**2) * precision * recall / np.where(below > 0, below, 1)
    return relevance


__all__ = ["rouge_l_relevance"]
