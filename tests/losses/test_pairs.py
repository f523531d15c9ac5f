"""Each loss over pairs: one clear error for other shapes, and half precision as in float32."""

import pytest
import torch
from torch.nn import functional as F

from vsehub.losses import AffiliationLoss, ContrastiveLoss, EmbeddingDistillationLoss, HingeLoss, RepresentationLoss
from vsehub.losses import StructureDistillationLoss as StructureLoss
from vsehub.losses.pairs import checked_pairs

IDS = torch.tensor([0, 0, 1, 2, 2, 3])
LOSSES = {
    "contrastive": ContrastiveLoss(),
    "hardest": HingeLoss(),
    "mean": lambda *pairs: HingeLoss()(*pairs, hardest=False),
    "affiliation": AffiliationLoss(),
    "representation": RepresentationLoss(4, 4),
}


def unit(rows=6, width=4, seed=0):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("texts", "ids"),
    [(unit(12), IDS), (unit(1), IDS), (unit(), IDS[:5]), (unit(), IDS[:, None]), (unit()[0], IDS), (unit(), [1, 2])],
)
def test_other_shapes_are_refused_in_one_line(name, texts, ids):
    with pytest.raises(ValueError, match=r"takes shapes \(N, D\), \(N, D\), \(N,\), not"):
        LOSSES[name](unit(), texts, ids)


def test_ids_are_a_tensor():
    with pytest.raises(TypeError, match="ids must be a tensor"):
        checked_pairs(unit(), unit(), list(range(6)))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtypes", [(torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)])
def test_half_precision_is_computed_in_float32(name, dtypes):
    images, texts = (unit(seed=seed).to(dtype) for seed, dtype in enumerate(dtypes))
    images.requires_grad_()
    loss = LOSSES[name](images, texts, IDS)
    loss.backward()
    expected = LOSSES[name](images.float(), texts.float(), IDS)
    assert torch.equal(loss, expected) and loss.dtype == torch.float32
    assert images.grad.dtype == dtypes[0]


def test_double_precision_stays():
    assert LOSSES["contrastive"](unit().double(), unit(seed=1).double(), IDS).dtype == torch.float64


@pytest.mark.parametrize("distance", ["cosine", "l2", "l1"])
def test_a_student_and_a_teacher_of_other_shapes_are_not_stretched(distance):
    with pytest.raises(ValueError, match=r"student and teacher must have one shape \(N, D\), not"):
        EmbeddingDistillationLoss(distance)(unit(), unit(1))
    half = EmbeddingDistillationLoss(distance)(unit().bfloat16(), unit(seed=1))
    assert torch.equal(half, EmbeddingDistillationLoss(distance)(unit().bfloat16().float(), unit(seed=1)))


@pytest.mark.parametrize("relation", ["own", "fused"])
def test_teachers_of_other_rows_are_not_stretched(relation):
    with pytest.raises(ValueError, match="rows of the student and of both teachers must be as many, not 6, 6, 1, 6"):
        StructureLoss(relation)(unit(), unit(), unit(1), unit())
