"""Distances to a teacher against closed forms."""

import pytest
import torch

from vsehub.losses import EmbeddingDistillationLoss


@pytest.mark.parametrize(("distance", "expected"), [("cosine", 2.0), ("l2", 1.0), ("l1", 1.0)])
def test_distances_of_opposite_vectors(distance, expected):
    student = torch.full((2, 4), 0.5)
    assert EmbeddingDistillationLoss(distance)(student, -student).item() == pytest.approx(expected, abs=1e-6)
    assert EmbeddingDistillationLoss(distance)(student, student).item() == pytest.approx(0.0, abs=1e-6)


def test_no_gradient_reaches_the_teacher():
    teacher = torch.randn(2, 4, requires_grad=True)
    EmbeddingDistillationLoss()(torch.randn(2, 4, requires_grad=True), teacher).backward()
    assert teacher.grad is None


def test_an_unknown_distance_is_refused():
    with pytest.raises(ValueError, match="distance"):
        EmbeddingDistillationLoss("kl")
