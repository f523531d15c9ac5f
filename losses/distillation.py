"""Distance from a student's embeddings to a teacher's."""

import torch
from torch import nn
from torch.nn import functional as F


class EmbeddingDistillationLoss(nn.Module):
    """Distance from a student's embeddings to a frozen teacher's (D2S-VSE eq. 7), mean over the batch.

    Args:
        distance: `cosine` (1 - cos), `l2` (squared, element mean of raw vectors) or `l1` (absolute, element mean).
    """

    def __init__(self, distance: str = "cosine"):
        super().__init__()
        if distance not in ("cosine", "l2", "l1"):
            raise ValueError(f"distance must be 'cosine', 'l2' or 'l1', got {distance!r}")
        self.distance = distance

    def forward(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        """Return the scalar distance of raw vectors (N, D), (N, D); no gradient reaches the teacher.

        Raises:
            ValueError: they have other shapes.
        """
        if student.shape != teacher.shape:
            said = f"{tuple(student.shape)} and {tuple(teacher.shape)}"
            raise ValueError(f"the vectors of student and teacher must have one shape (N, D), not {said}")
        student = student.to(torch.promote_types(student.dtype, torch.float32))  # half precision has too few digits
        teacher = teacher.detach().to(student.dtype)
        if self.distance == "cosine":
            return 1 - F.cosine_similarity(student, teacher, dim=-1).mean()
        return F.mse_loss(student, teacher) if self.distance == "l2" else F.l1_loss(student, teacher)


__all__ = ["EmbeddingDistillationLoss"]
