"""The mean embeddings of training images and captions, which a search over both together subtracts."""

from collections.abc import Sequence
from itertools import compress

import numpy as np
import torch
from accelerate import Accelerator

from ..evaluation.embed import embed_items
from ..processing.batching import by_length
from .inputs.tower_cache import CachedRowInputs

MOST = 1000  # images; the mean of so many unit vectors is within 0.03 of the mean of all


def modality_means(
    model, inputs: CachedRowInputs, accelerator: Accelerator, batch_size: int = 64, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Means of the unit vectors of up to `MOST` images and of one caption of each, (D,) and (D,).

    Args:
        model: put in eval mode.
        inputs: of the training rows.
        accelerator: gives this process its share.
        batch_size: images, or captions, at a time.
        seed: of the choice.
    """
    model.eval()
    rows, captions = _chosen(inputs.owners.numpy(), seed)
    readable = inputs.readable(rows)
    rows, captions = list(compress(rows, readable)), list(compress(captions, readable))
    images = embed_items(
        model, accelerator, range(len(rows)), lambda items: inputs.images(_of(rows, items)), batch_size, "image_embeds"
    )
    order = by_length([inputs.captions[caption] for caption in captions])
    texts = embed_items(
        model, accelerator, order, lambda items: inputs.texts(_of(captions, items)), batch_size, "text_embeds"
    )
    return images.mean(0), texts.mean(0)


def _chosen(owners: np.ndarray, seed: int) -> tuple[list[int], list[int]]:
    """Some rows, and one caption of each, numbered over all; `owners` are the rows of all captions, ascending."""
    draw = np.random.default_rng(seed)
    known, firsts, counts = np.unique(owners, return_index=True, return_counts=True)
    taken = np.sort(draw.permutation(len(known))[:MOST])
    captions = firsts[taken] + draw.integers(counts[taken])
    return known[taken].tolist(), captions.tolist()


def _of(numbers: list[int], items: Sequence[int]) -> list[int]:
    return [numbers[item] for item in items]


def keep_means(config, means: tuple[torch.Tensor, torch.Tensor]):
    """Write the means into a configuration, in six digits."""
    image, text = ([round(number, 6) for number in mean.tolist()] for mean in means)
    config.image_embeds_mean, config.text_embeds_mean = image, text


__all__ = ["keep_means", "modality_means"]
