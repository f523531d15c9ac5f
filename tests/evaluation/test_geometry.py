"""Closed forms of the geometry of embeddings, and loops over all pairs."""

import doctest
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vsehub.evaluation import counting, geometry
from vsehub.evaluation.geometry import (
    alignment,
    directions_for,
    effective_rank,
    modality_gap,
    separability,
    singular_values,
    uniformity,
    variance_shares,
)


def rank_of(embeds) -> float:
    return effective_rank(singular_values(embeds))


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_examples():
    assert doctest.testmod(geometry, extraglobs={"torch": torch}).failed == 0


@pytest.mark.parametrize("width", [2, 5, 16])
def test_all_directions_alike_have_the_effective_rank_of_their_number(width):
    axes = torch.eye(width)
    assert rank_of(torch.cat([axes, -axes])) == pytest.approx(width)
    assert directions_for(variance_shares(singular_values(torch.cat([axes, -axes]))), 0.9) == math.ceil(0.9 * width)


def test_one_direction_has_rank_1_and_none_has_0():
    line = torch.linspace(-1, 1, 7)[:, None] * torch.tensor([[3.0, 4.0, 0.0]])
    assert rank_of(line) == pytest.approx(1, abs=1e-4)
    assert directions_for(variance_shares(singular_values(line)), 0.9) == 1
    same = torch.ones(5, 3)
    assert rank_of(same) == 0 and directions_for(variance_shares(singular_values(same)), 0.9) == 0


def test_the_rank_ignores_where_the_mean_lies_how_large_and_how_turned():
    embeds = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double() * torch.arange(1.0, 7)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double())[0]
    assert rank_of(3 * embeds @ turn + 5) == pytest.approx(rank_of(embeds), abs=1e-4)
    assert 1 < rank_of(embeds) < 6


def test_the_rank_equals_the_formula_in_numpy():
    embeds = unit(40, 8, 2)
    values = np.linalg.svd(embeds.double().numpy() - embeds.double().numpy().mean(0), compute_uv=False)
    shares = values / values.sum()
    assert rank_of(embeds) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))
    assert variance_shares(singular_values(embeds)).numpy() == pytest.approx(values**2 / (values**2).sum())


def test_alignment_and_uniformity_equal_loops_over_pairs(monkeypatch):
    images, texts, owners = unit(6, 5, 3), unit(12, 5, 4), torch.arange(6).repeat_interleave(2)
    expected = np.mean([float((images[row] - text).square().sum()) for text, row in zip(texts, owners)])
    assert alignment(images, texts, owners) == pytest.approx(expected, rel=1e-5)
    assert alignment(images, images[owners], owners) == 0
    pairs = [math.exp(-2 * float((a - b).square().sum())) for i, a in enumerate(texts) for b in texts[:i]]
    assert uniformity(texts) == pytest.approx(math.log(np.mean(pairs)), rel=1e-5)
    monkeypatch.setattr(counting, "SCORES_AT_ONCE", 24)  # two rows at a time
    assert uniformity(texts) == pytest.approx(math.log(np.mean(pairs)), rel=1e-5)


def test_uniformity_of_equal_opposite_and_orthogonal_vectors():
    same = unit(1, 8, 5)
    assert uniformity(same.expand(4, -1)) == pytest.approx(0, abs=1e-5)
    assert uniformity(torch.cat([same, -same])) == pytest.approx(-8, abs=1e-4)  # squared distance 4
    assert uniformity(torch.eye(7)) == pytest.approx(-4, abs=1e-5)  # squared distance 2
    with pytest.raises(ValueError, match="at least 2 embeddings, not 1"):
        uniformity(same)


def test_the_gap_is_that_of_the_means_and_0_for_equal_ones():
    images, texts = unit(20, 4, 6), unit(30, 4, 7)
    assert modality_gap(images, images[torch.randperm(20)]) == pytest.approx(0, abs=1e-7)
    shift = torch.tensor([0.0, 3.0, 4.0, 0.0])
    texts = texts - texts.mean(0) + images.mean(0)
    assert modality_gap(images, texts + shift) == pytest.approx(5, rel=1e-5)


def test_separability_is_100_apart_and_50_for_equal_means():
    axes = torch.eye(3)
    around = torch.cat([axes, -axes])
    assert separability(around, around) == 50
    assert separability(around + 5, around - 5) == 100
    assert separability([[0.0], [2.0], [4.0]], [[2.0], [4.0], [6.0]]) == pytest.approx(200 / 3)  # means 2 and 4


def test_nan_is_named():
    bad = torch.eye(3)
    bad[1, 0] = torch.nan
    for measure in (singular_values, uniformity):
        with pytest.raises(ValueError, match=r"rows \[1\]"):
            measure(bad)


def test_an_owner_that_is_no_image_is_refused():
    with pytest.raises(ValueError, match=r"texts \[1\] is no row of an image"):
        alignment(torch.eye(3), torch.eye(3), [0, -1, 2])
