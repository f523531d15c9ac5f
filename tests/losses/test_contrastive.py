"""InfoNCE and NT-Xent against closed forms and loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from vsehub.losses import AffiliationLoss, ContrastiveLoss
from vsehub.losses.contrastive import nt_xent


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_equal_scores_cost_log_n():
    embeds = unit(1, 3).expand(5, 3)
    assert ContrastiveLoss()(embeds, embeds, torch.arange(5)).item() == pytest.approx(math.log(5), abs=1e-5)


def test_captions_of_one_image_share_the_target():
    images, texts, ids = unit(4, 3), unit(4, 3, seed=1), torch.tensor([0, 0, 1, 2])
    logits = images @ texts.t() / 0.07
    target = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    rows = -(target * logits.log_softmax(1)).sum(1).mean()
    columns = -(target * logits.t().log_softmax(1)).sum(1).mean()
    assert ContrastiveLoss(0.07)(images, texts, ids).item() == pytest.approx(((rows + columns) / 2).item(), abs=1e-5)


def test_a_wild_temperature_is_clamped():
    loss = ContrastiveLoss(0.07)
    for wild in (-1e9, 0.0, 1e9, float("inf")):
        loss.temperature.data.fill_(wild)
        assert torch.isfinite(loss(unit(3, 3), unit(3, 3, seed=1), torch.arange(3)))


def test_a_temperature_that_easy_data_drove_to_its_bound_comes_back_on_hard_data():
    loss, rows = ContrastiveLoss(0.07), unit(16, 8)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)

    def train(texts):
        for _ in range(40):
            optimizer.zero_grad()
            loss(rows, texts, torch.arange(16)).backward()
            optimizer.step()
        return loss.temperature.item()

    assert train(rows) < 0.02
    assert train(unit(16, 8, seed=1)) > 0.1


@pytest.mark.parametrize("kind", [ContrastiveLoss, AffiliationLoss])
def test_a_temperature_out_of_range_is_refused_instead_of_replaced(kind):
    with pytest.raises(ValueError, match=r"\[0.01, 1\], got 1.5"):
        kind(1.5)


def test_nt_xent_equals_its_loops():
    first, second = unit(5, 3), unit(5, 3, seed=1)
    both, total = torch.cat([first, second]), 0.0
    for i in range(10):
        scores = {j: (both[i] @ both[j] / 0.2).exp() for j in range(10) if j != i}
        total -= (scores[(i + 5) % 10] / sum(scores.values())).log()
    assert nt_xent(first, second, 0.2).item() == pytest.approx((total / 10).item(), rel=1e-5)
