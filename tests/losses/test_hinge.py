"""The hinge against closed forms and loops."""

import pytest
import torch
from torch.nn import functional as F

from vsehub.losses import HingeLoss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_equal_scores_cost_the_margin_per_hardest_negative_each_way():
    embeds = unit(1, 3).expand(4, 3)
    assert HingeLoss(0.2)(embeds, embeds, torch.arange(4)).item() == pytest.approx(2 * 4 * 0.2, abs=1e-6)
    loss = HingeLoss(0.2)(embeds, embeds, torch.arange(4), hardest=False)
    assert loss.item() == pytest.approx(2 * 4 * 3 * 0.2, abs=1e-5)


def test_captions_of_one_image_are_no_negatives():
    embeds = unit(1, 3).expand(2, 3)
    assert HingeLoss(0.2)(embeds, embeds, torch.tensor([7, 7])).item() == 0


def test_pairs_beyond_the_margin_cost_nothing():
    assert HingeLoss(0.2)(torch.eye(3), torch.eye(3), torch.arange(3)).item() == 0


@pytest.mark.parametrize("hardest", [True, False])
def test_the_hinge_equals_its_loops(hardest):
    images, texts, ids = unit(6, 4), unit(6, 4, seed=1), torch.tensor([0, 0, 1, 2, 2, 3])
    scores, total = images @ texts.t(), 0.0
    for i in range(6):
        row = [max(0, 0.2 + scores[i, j] - scores[i, i]) for j in range(6) if ids[i] != ids[j]]
        column = [max(0, 0.2 + scores[j, i] - scores[i, i]) for j in range(6) if ids[i] != ids[j]]
        total += (max(row) + max(column)) if hardest else sum(row) + sum(column)
    assert HingeLoss(0.2)(images, texts, ids, hardest=hardest).item() == pytest.approx(float(total), abs=1e-5)
