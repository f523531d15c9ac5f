"""The losses against closed forms and loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from vsehub.training.losses import AffiliationLoss, ContrastiveLoss, EmbeddingDistillationLoss, HingeLoss, nt_xent


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


LABELS = torch.tensor([0, 0, 1, 2, 2, 2])


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


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="distance"):
        EmbeddingDistillationLoss("kl")


def test_the_affiliation_equals_its_loops():
    images, texts, tau = unit(6, 4), unit(6, 4, seed=1), 0.07
    same = [[j for j in range(6) if LABELS[j] == LABELS[i]] for i in range(6)]
    image_centres = [sum(images[j] for j in rows) / len(rows) for rows in same]
    text_centres = [sum(texts[j] for j in rows) / len(rows) for rows in same]
    total = 0.0
    for i in range(6):
        of_image = torch.stack([images[i] @ centre for centre in text_centres]) / tau
        of_centre = torch.stack([image_centres[i] @ text for text in texts]) / tau
        total += -(of_image.log_softmax(0)[same[i]].mean() + of_centre.log_softmax(0)[same[i]].mean()) / 12
    assert AffiliationLoss(tau)(images, texts, LABELS).item() == pytest.approx(float(total), abs=1e-5)


def test_with_global_centres_shared_and_one_to_one_targets_are_one_loss_with_one_gradient():
    images, texts = unit(6, 4).requires_grad_(), unit(6, 4, seed=1).requires_grad_()
    shared, single = (AffiliationLoss(0.07, one)(images, texts, LABELS) for one in (False, True))
    assert shared.item() == pytest.approx(single.item(), abs=1e-6)
    for a, b in zip(torch.autograd.grad(shared, (images, texts)), torch.autograd.grad(single, (images, texts))):
        assert torch.allclose(a, b, atol=1e-6)


def test_with_centres_per_process_the_two_targets_differ_and_centres_stay_at_home():
    images, texts, groups = unit(6, 4), unit(6, 4, seed=1), torch.tensor([0, 0, 0, 0, 1, 1])
    shared, single = (AffiliationLoss(0.07, one)(images, texts, LABELS, groups) for one in (False, True))
    assert abs(shared.item() - single.item()) > 1e-3
    alone = AffiliationLoss(0.07, True)(images, texts, torch.tensor([0, 0, 1, 2, 3, 3]))  # row 3's class split in two
    assert single.item() == pytest.approx(alone.item(), abs=1e-6)


def test_classes_of_one_make_the_affiliation_the_image_to_text_half_of_a_contrast():
    images, texts = unit(5, 4), unit(5, 4, seed=1)
    expected = F.cross_entropy(images @ texts.t() / 0.07, torch.arange(5))
    assert AffiliationLoss(0.07)(images, texts, torch.arange(5)).item() == pytest.approx(expected.item(), abs=1e-6)


def test_perfectly_gathered_classes_cost_the_logarithm_of_their_size():
    embeds = torch.eye(3)[LABELS]
    loss = AffiliationLoss(0.01)(embeds, embeds, LABELS)  # log 2 twice, log 1 once, log 3 thrice
    assert loss.item() == pytest.approx((2 * math.log(2) + 3 * math.log(3)) / 6, abs=1e-4)
