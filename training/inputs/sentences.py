"""Parts of dense texts: a training step reads some sentences of a description instead of all of them.

A contrastive loss over whole descriptions makes pictures distinguishable, but not findable by one fact: a few words of
eighty are enough to tell a batch apart. Read in parts, each sentence must lead to its picture (Zheng et al., DreamLIP,
ECCV 2024; Xiao et al., FLAIR, CVPR 2025).
"""

import re

import numpy as np

END = re.compile(r"(?<=[.!?])\s+|\n+")


def sentences(text: str) -> list[str]:
    """The sentences of a text, at least one: cut after `.`, `!`, `?` and at line breaks."""
    parts = [part.strip() for part in END.split(text)]
    return [part for part in parts if re.search(r"\w", part)] or [text]


def drawn(count: int, rng: np.random.Generator) -> list[int]:
    """Which of `count` sentences are read, in which order: any number of them is equally likely."""
    return rng.permutation(count)[: rng.integers(1, count + 1)].tolist()


__all__ = ["drawn", "sentences"]
