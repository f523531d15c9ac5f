"""Losses as functions of embeddings and ids. None of them knows a model, a dataset or a process group."""

from .affiliation import AffiliationLoss
from .contrastive import ContrastiveLoss
from .distillation import EmbeddingDistillationLoss
from .hinge import HingeLoss
from .structure import RepresentationLoss, StructureDistillationLoss

__all__ = [
    "AffiliationLoss",
    "ContrastiveLoss",
    "EmbeddingDistillationLoss",
    "HingeLoss",
    "RepresentationLoss",
    "StructureDistillationLoss",
]
