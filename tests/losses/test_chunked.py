"""Losses in linear memory against their plain forms, which hold the whole matrix of scores."""

import plain_losses
import pytest
import torch
from torch.nn import functional as F

from vsehub.losses import AffiliationLoss, ContrastiveLoss, HingeLoss, chunked
from vsehub.losses.chunked import Part, chunked_sum, log_sums
from vsehub.losses.structure import StructureDistillationLoss, soft_positive_contrast

IDS = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 7])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 0, 0, 3, 1])
GROUPS = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1])


@pytest.fixture(autouse=True, params=[1, 30, 10**6], ids=["a row a block", "some rows", "one block"])
def block(request, monkeypatch):
    monkeypatch.setattr(chunked, "BLOCK", request.param)


def unit(rows, dim=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, dim, generator=generator, dtype=dtype), dim=-1).requires_grad_()


def assert_same(first, second, inputs):
    """Equal values and gradients; an input that one side does not use has gradient 0."""
    torch.testing.assert_close(first, second, atol=1e-10, rtol=1e-10)
    for one, other in zip(*(torch.autograd.grad(loss, inputs) for loss in (first, second))):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


def test_blocks_cover_every_row_once():
    rows = [row for block in Part().blocks(11, 7) for row in range(11)[block]]
    assert rows == list(range(11))


def test_contrast_equals_its_plain_form():
    images, texts, loss = unit(12), unit(12, seed=1), ContrastiveLoss().double()
    tau = loss.temperature
    assert_same(loss(images, texts, IDS), plain_losses.contrast(images, texts, IDS, tau), [images, texts, tau])


@pytest.mark.parametrize("hardest", [True, False])
def test_hinge_equals_its_plain_form(hardest):
    images, texts = unit(12), unit(12, seed=1)
    assert_same(
        HingeLoss()(images, texts, IDS, hardest), plain_losses.hinge(images, texts, IDS, hardest), [images, texts]
    )


def test_a_batch_of_one_image_has_no_hardest_negative():
    images, texts = unit(3), unit(3, seed=1)
    loss = HingeLoss()(images, texts, torch.zeros(3, dtype=torch.long))
    assert loss.item() == 0 and torch.autograd.grad(loss, images)[0].abs().max() == 0


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["global", "per process"])
@pytest.mark.parametrize("one_to_one", [False, True])
def test_affiliation_equals_its_plain_form(groups, one_to_one):
    images, texts, loss = unit(12), unit(12, seed=1), AffiliationLoss(0.07, one_to_one).double()
    tau = loss.temperature
    plain = plain_losses.affiliation(images, texts, LABELS, tau, groups, one_to_one)
    assert_same(loss(images, texts, LABELS, groups), plain, [images, texts, tau])


def test_a_shared_target_one_way_equals_its_plain_form():
    rows, columns, tau = unit(12), unit(12, seed=1), torch.tensor([0.1], dtype=torch.float64, requires_grad=True)
    plain = F.cross_entropy(rows @ columns.t() / tau, plain_losses.shared(IDS))
    assert_same(soft_positive_contrast(rows, columns, IDS, tau), plain, [rows, columns, tau])


@pytest.mark.parametrize("relation", ["own", "fused"])
@pytest.mark.parametrize("distance", ["mae", "mse"])
def test_structure_equals_its_plain_form(relation, distance):
    images, texts = unit(12, dtype=torch.float32), unit(12, seed=1, dtype=torch.float32)
    of_images, of_texts = (unit(12, 7, seed=seed, dtype=torch.float32).detach() for seed in (2, 3))
    learn = relation == "fused"
    loss = StructureDistillationLoss(relation, distance, 0.3, learn_text_share=learn)
    inputs = [images, texts, loss.text_share] if learn else [images, texts]
    share = loss.text_share if learn else None
    plain = plain_losses.structure(images, texts, of_images, of_texts, distance, share)
    ours, _ = loss(images, texts, of_images, of_texts)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    for one, other in zip(*(torch.autograd.grad(value, inputs) for value in (ours, plain))):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def largest_saved(loss) -> int:
    """Entries of the largest tensor that a loss keeps for its backward pass."""
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
        loss().backward()
    return max(sizes)


def test_what_is_kept_for_the_backward_pass_grows_with_the_rows_alone(monkeypatch):
    """No tensor of N x N is saved: at N = 512 and D = 8 it would be 32 times larger than all that is allowed."""
    monkeypatch.setattr(chunked, "BLOCK", 4096)
    images, texts = unit(512, 8, dtype=torch.float32), unit(512, 8, seed=1, dtype=torch.float32)
    ids, labels = torch.arange(512), torch.arange(512) % 9
    teachers = [unit(512, 8, seed=seed, dtype=torch.float32).detach() for seed in (2, 3)]
    losses = {
        "contrast": lambda: ContrastiveLoss()(images, texts, ids),
        "hinge": lambda: HingeLoss()(images, texts, ids, hardest=False),
        "hardest": lambda: HingeLoss()(images, texts, ids),
        "affiliation": lambda: AffiliationLoss()(images, texts, labels),
        "structure": lambda: StructureDistillationLoss()(images, texts, *teachers)[0],
    }
    for name, loss in losses.items():
        assert largest_saved(loss) <= 512 * 16, name


def test_sums_of_a_function_and_their_gradients():
    rows, columns = unit(6), unit(9, seed=1)

    def share(block, a, b):
        return (a[block] @ b.t()).exp().sum()

    assert_same(chunked_sum(share, 6, 9, rows, columns), (rows @ columns.t()).exp().sum(), [rows, columns])
    with torch.no_grad():
        assert chunked_sum(share, 6, 9, rows, columns).item() == pytest.approx((rows @ columns.t()).exp().sum().item())


def test_log_sums_both_ways():
    rows, columns, tau = unit(6), unit(9, seed=1), torch.tensor([0.2], dtype=torch.float64, requires_grad=True)
    scores, weights = rows @ columns.t() / tau, torch.arange(6.0, dtype=torch.float64)
    of_rows, of_columns = log_sums(rows, columns, tau)
    ours = (of_rows * weights).sum() + (of_columns**2).sum()
    plain = (scores.logsumexp(1) * weights).sum() + (scores.logsumexp(0) ** 2).sum()
    assert_same(ours, plain, [rows, columns, tau])
