import math

import pytest
import torch
from torch.nn import functional as F

from vsehub.training.losses import AffiliationLoss, ContrastiveLoss, EmbeddingDistillationLoss, HingeLoss, nt_xent
from vsehub.training.objectives import D2SObjective, PairEmbeddings


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


@pytest.mark.parametrize(("distance", "expected"), [("cosine", 2.0), ("l2", 1.0), ("l1", 1.0)])
def test_distances_of_opposite_vectors(distance, expected):
    student = torch.full((2, 4), 0.5)
    assert EmbeddingDistillationLoss(distance)(student, -student).item() == pytest.approx(expected, abs=1e-6)
    assert EmbeddingDistillationLoss(distance)(student, student).item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_reaches_the_teacher():
    teacher = torch.randn(2, 4, requires_grad=True)
    EmbeddingDistillationLoss()(torch.randn(2, 4, requires_grad=True), teacher).backward()
    assert teacher.grad is None


def test_nt_xent_equals_its_loops():
    first, second = unit(5, 3), unit(5, 3, seed=1)
    both, total = torch.cat([first, second]), 0.0
    for i in range(10):
        scores = {j: (both[i] @ both[j] / 0.2).exp() for j in range(10) if j != i}
        total -= (scores[(i + 5) % 10] / sum(scores.values())).log()
    assert nt_xent(first, second, 0.2).item() == pytest.approx((total / 10).item(), rel=1e-5)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="distance"):
        EmbeddingDistillationLoss("kl")
    with pytest.raises(ValueError, match="align"):
        D2SObjective(align="triplet")


def pairs(teacher=True):
    vectors = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    dense = torch.randn(6, 4, generator=torch.Generator().manual_seed(3)) if teacher else None
    return PairEmbeddings(unit(6, 4), F.normalize(vectors, dim=-1), vectors, torch.arange(6), dense)


def test_the_hinge_sums_all_negatives_first_and_then_takes_the_hardest():
    objective = D2SObjective(ramp_epochs=0, mean_warmup_epochs=1)
    batch = pairs(teacher=False)
    everything = HingeLoss()(batch.image_embeds, batch.text_embeds, batch.image_ids, hardest=False)
    hardest = HingeLoss()(batch.image_embeds, batch.text_embeds, batch.image_ids)
    assert objective(batch, 0.99)[0] == everything and objective(batch, 1.0)[0] == hardest


def test_the_ramp_scales_alignment_but_not_distillation():
    objective = D2SObjective(ramp_epochs=1)
    loss, parts = objective(pairs(), 0.25)
    assert loss.item() == pytest.approx(0.25 * parts["align"].item() + parts["distill"].item(), abs=1e-5)


def test_weight_zero_switches_distillation_off():
    assert "distill" not in D2SObjective(distill_weight=0)(pairs(), 2.0)[1]
