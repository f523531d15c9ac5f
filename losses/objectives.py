"""The objective of a stage: which embeddings enter which losses, with which weights.

An objective is a module of the trainer: its parameters and buffers (temperatures, projections, queues) are optimised in
a parameter group of their own and saved in training checkpoints, never with the model. It sees embeddings of the global
batch and ids, not batches, so gathering, gradient caching and chunking are independent of it.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import nn

from .affiliation import AffiliationLoss
from .contrastive import ContrastiveLoss
from .distillation import EmbeddingDistillationLoss
from .hinge import HingeLoss
from .structure import RepresentationLoss, StructureDistillationLoss


@dataclass(eq=False)
class PairEmbeddings:
    """Embeddings of N pairs, gathered over processes; row i of every field belongs together.

    Args:
        image_embeds, text_embeds: unit vectors (N, D).
        text_vectors: the same texts before normalisation (N, D).
        image_ids: (N,) integers.
        dense_text_embeds: the dense teacher's vectors before normalisation (N, D), or None.
        labels: (N,) scene classes, or None.
        process_ids: (N,) which process each row comes from, or None.
        image_teacher, text_teacher: features of uni-modal teachers (N, G_I), (N, G_T), or None.
    """

    image_embeds: torch.Tensor
    text_embeds: torch.Tensor
    text_vectors: torch.Tensor
    image_ids: torch.Tensor
    dense_text_embeds: torch.Tensor | None = None
    labels: torch.Tensor | None = None
    process_ids: torch.Tensor | None = None
    image_teacher: torch.Tensor | None = None
    text_teacher: torch.Tensor | None = None

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PairEmbeddings":
        """Apply a function to every field that is set, in their order."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: function(value) for name, value in values.items() if value is not None})


class D2SObjective(nn.Module):
    """Alignment plus, where there is a dense teacher, dense-to-sparse distillation (D2S-VSE eq. 8).

    Args:
        align: `hinge` (paper: all negatives during the first `mean_warmup_epochs`, then the hardest) or `infonce`.
        margin, temperature: of the hinge, of InfoNCE.
        mean_warmup_epochs: how long the hinge sums over all negatives.
        ramp_epochs: over this many epochs, the alignment loss grows from 0 to its full weight (paper: 1).
        distance, distill_weight: of the distillation; 0 switches it off.
    """

    def __init__(
        self,
        align: str = "hinge",
        margin: float = 0.2,
        temperature: float = 0.07,
        mean_warmup_epochs: float = 1.0,
        ramp_epochs: float = 1.0,
        distance: str = "cosine",
        distill_weight: float = 1.0,
    ):
        super().__init__()
        if align not in ("hinge", "infonce"):
            raise ValueError(f"align must be 'hinge' or 'infonce', got {align!r}")
        self.align = HingeLoss(margin) if align == "hinge" else ContrastiveLoss(temperature)
        self.distill = EmbeddingDistillationLoss(distance)
        self.mean_warmup_epochs = mean_warmup_epochs
        self.ramp_epochs = ramp_epochs
        self.distill_weight = distill_weight

    def forward(self, pairs: PairEmbeddings, epoch: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and its parts.

        Args:
            pairs: the global batch.
            epoch: training progress, counted in epochs (0 at the first step).
        """
        embeds = (pairs.image_embeds.float(), pairs.text_embeds.float(), pairs.image_ids)
        if isinstance(self.align, HingeLoss):
            align = self.align(*embeds, hardest=epoch >= self.mean_warmup_epochs)
        else:
            align = self.align(*embeds)
        parts = {"align": align}
        loss = align * min(1.0, epoch / self.ramp_epochs) if self.ramp_epochs else align
        if pairs.dense_text_embeds is not None and self.distill_weight:
            parts["distill"] = self.distill(pairs.text_vectors.float(), pairs.dense_text_embeds.float())
            loss = loss + self.distill_weight * parts["distill"]
        return loss, parts


class PIRObjective(nn.Module):
    """Contrast plus affiliation to scene classes (PIR, section 3.4): L = L_c + weight * L_a.

    Args:
        contrast: `infonce` (captions of one image share the target, as in the official code) or `triplet` (the ablation
            of the paper: the sum of all hinge violations).
        temperature, margin: of the two.
        affiliation_weight: 0 switches the affiliation off; else every row needs a class label.
        affiliation_temperature: initial value; learned.
        legacy: as the official code, class centres per process, one-to-one targets, and a triplet loss in which
            captions of one image are negatives of each other.
    """

    def __init__(
        self,
        contrast: str = "infonce",
        temperature: float = 0.07,
        margin: float = 0.2,
        affiliation_weight: float = 1.0,
        affiliation_temperature: float = 0.07,
        legacy: bool = False,
    ):
        super().__init__()
        if contrast not in ("infonce", "triplet"):
            raise ValueError(f"contrast must be 'infonce' or 'triplet', got {contrast!r}")
        self.contrast = HingeLoss(margin) if contrast == "triplet" else ContrastiveLoss(temperature)
        self.affiliation = AffiliationLoss(affiliation_temperature, legacy) if affiliation_weight else None
        self.affiliation_weight = affiliation_weight
        self.legacy = legacy

    def forward(self, pairs: PairEmbeddings, epoch: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and its parts.

        Raises:
            ValueError: there is an affiliation loss, and no labels.
        """
        image, text = pairs.image_embeds.float(), pairs.text_embeds.float()
        if isinstance(self.contrast, HingeLoss):
            ids = torch.arange(len(image), device=image.device) if self.legacy else pairs.image_ids
            parts = {"contrast": self.contrast(image, text, ids, hardest=False)}
        else:
            parts = {"contrast": self.contrast(image, text, pairs.image_ids)}
        loss = parts["contrast"]
        if self.affiliation is not None:
            if pairs.labels is None:
                raise ValueError(
                    "the affiliation loss needs a scene class per image: set --label_column, or --affiliation_weight 0"
                )
            groups = pairs.process_ids if self.legacy else None
            parts["affiliation"] = self.affiliation(image, text, pairs.labels, groups)
            loss = loss + self.affiliation_weight * parts["affiliation"]
        return loss, parts


class StructuredObjective(nn.Module):
    """Another objective plus structure-aware distillation (Yang et al., IEEE TIP 2024).

    Args:
        objective: the other objective.
        structure: the structure loss.
        weight: of the structure loss (paper: 2).
        representation: losses to projected teachers by modality (`image`, `text`), with their weights.
    """

    def __init__(
        self,
        objective: nn.Module,
        structure: StructureDistillationLoss,
        weight: float,
        representation: dict[str, tuple[RepresentationLoss, float]] | None = None,
    ):
        super().__init__()
        self.objective, self.structure, self.weight = objective, structure, weight
        representation = representation or {}
        self.representation = nn.ModuleDict({name: loss for name, (loss, _) in representation.items()})
        self.representation_weights = {name: weight for name, (_, weight) in representation.items()}

    def forward(self, pairs: PairEmbeddings, epoch: float) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss and all parts.

        Raises:
            ValueError: without teachers' features.
        """
        if pairs.image_teacher is None or pairs.text_teacher is None:
            raise ValueError(
                "structure-aware distillation needs the features of both teachers: make them with `vsehub teachers "
                "DATA --image MODEL --text MODEL --out DATA2` and train on DATA2"
            )
        loss, parts = self.objective(pairs, epoch)
        structure, structure_parts = self.structure(
            pairs.image_embeds, pairs.text_embeds, pairs.image_teacher, pairs.text_teacher
        )
        loss, parts = loss + self.weight * structure, parts | structure_parts
        sides = {
            "image": (pairs.image_embeds, pairs.image_teacher),
            "text": (pairs.text_embeds, pairs.text_teacher),
        }
        for name, contrast in self.representation.items():
            parts[f"representation_{name}"] = contrast(*sides[name], pairs.image_ids)
            loss = loss + self.representation_weights[name] * parts[f"representation_{name}"]
        return loss, parts


__all__ = ["D2SObjective", "PIRObjective", "PairEmbeddings", "StructuredObjective"]
