"""The losses as their formulas are written, with the whole matrix of scores: references for tests and benchmarks."""

import torch
from torch.nn import functional as F


def shared(ids: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Targets (N, N) that rows of one id share."""
    same = (ids[:, None] == ids[None]).to(dtype)
    return same / same.sum(1, keepdim=True)


def contrast(images, texts, ids, tau) -> torch.Tensor:
    """Symmetric InfoNCE with shared targets."""
    logits, target = images @ texts.t() / tau, shared(ids, images.dtype)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2


def hinge(images, texts, ids, hardest, margin=0.2) -> torch.Tensor:
    """The hinge of VSE++ over the hardest or over all negatives, summed."""
    scores = images @ texts.t()
    own, same = scores.diagonal(), ids[:, None] == ids[None]
    of_images = (margin + scores - own[:, None]).clamp(min=0).masked_fill(same, 0.0)
    of_texts = (margin + scores - own[None]).clamp(min=0).masked_fill(same, 0.0)
    return of_images.amax(1).sum() + of_texts.amax(0).sum() if hardest else of_images.sum() + of_texts.sum()


def affiliation(images, texts, labels, tau, groups=None, one_to_one=False) -> torch.Tensor:
    """PIR's affiliation loss with a centre a row."""
    same = labels[:, None] == labels[None]
    together = (same if groups is None else same & (groups[:, None] == groups[None])).to(images.dtype)
    mean = together / together.sum(1, keepdim=True)
    target = torch.eye(len(labels), dtype=images.dtype) if one_to_one else shared(labels, images.dtype)
    of_images = F.cross_entropy(images @ (mean @ texts).t() / tau, target)
    return (of_images + F.cross_entropy((mean @ images) @ texts.t() / tau, target)) / 2


def structure(images, texts, of_images, of_texts, distance="mae", share=None, temperature=0.07) -> torch.Tensor:
    """Structure-aware distillation of vectors (N, D) with unit teacher vectors; with `share`, relation `fused`."""
    off = ~torch.eye(len(images), dtype=torch.bool)

    def compare(student, target):
        difference = (student - target)[off]
        return difference.abs().mean() / temperature if distance == "mae" else (difference**2).mean() / temperature**2

    image_target, text_target = of_images @ of_images.t(), of_texts @ of_texts.t()
    v, t = F.normalize(images, dim=-1), F.normalize(texts, dim=-1)
    if share is None:
        return (compare(v @ v.t(), image_target) + compare(t @ t.t(), text_target)) / 2
    fused = F.normalize(v + t, dim=-1)
    target = share * text_target + (1 - share) * image_target
    balance = compare(image_target, target) + compare(text_target, target)
    return compare(fused @ fused.t(), target) + balance / 2
