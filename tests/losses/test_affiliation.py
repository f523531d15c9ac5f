"""The affiliation loss against closed forms and loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from vsehub.losses import AffiliationLoss


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


LABELS = torch.tensor([0, 0, 1, 2, 2, 2])


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
