"""Structure-aware distillation: keep the geometry that uni-modal teachers give (Yang et al., IEEE TIP 2024).

Where one modality is poorer than the other, exact matching distorts the shared space. With the cosine matrices R_I and
R_T of a frozen image teacher and a frozen text teacher, and S of the student, the loss is a distance between S and what
the teachers say, over all pairs of different rows.

Everything here is for training only: its state belongs to the objective, never to the model. Losses take embeddings.
Shapes: N rows of the global batch, M rows of the memory bank, D shared space, G_I and G_T widths of the teachers.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from .chunked import chunked_sum, log_sums, recomputed
from .contrastive import clamped, new_temperature, target_scores
from .pairs import checked_pairs

RELATIONS = ("own", "fused")
DISTANCES = ("mae", "mse")


class StructureDistillationLoss(nn.Module):
    """Distance between the student's relations and the teachers', mean over pairs of rows.

    Args:
        relation: which relations of the student are compared with what.
            `own`: the image cosines with R_I and the text cosines with R_T, half each; no balance between the teachers
            is needed.
            `fused` (paper): the cosines of the normalised v + t with E = share R_T + (1 - share) R_I. The paper fuses
            with a cross-encoder trained by image-text matching, which is out of scope here; the sum of the two
            embeddings replaces its vector.
        distance: `mae` (paper) or `mse` (the official code's alternative).
        text_share: the weight lambda of the text teacher in E.
        learn_text_share: train the share, as the paper does. The two terms that tie E to the teachers (`balance` in the
            parts) then sum to the same for every share in [0, 1] and pass it no gradient there, so the share drifts to
            the teacher that the student already resembles. It is not clamped, as in the official code.
        temperature: tau_2; divides the cosines, so it only scales the loss. It is fixed: a learned one only grows, and
            switches the loss off.
        image_mean, text_mean: means of the teachers' features over the dataset, (G_I,) and (G_T,), subtracted before
            cosines are taken. None subtracts nothing (official code); features after a ReLU and [CLS] vectors then have
            cosines far above 0.
        bank: pairs of earlier batches; each row then relates to them, too.
    """

    def __init__(
        self,
        relation: str = "own",
        distance: str = "mae",
        text_share: float = 0.5,
        learn_text_share: bool = False,
        temperature: float = 0.07,
        image_mean: torch.Tensor | None = None,
        text_mean: torch.Tensor | None = None,
        bank: "MemoryBank | None" = None,
    ):
        super().__init__()
        if relation not in RELATIONS:
            raise ValueError(f"relation must be one of {RELATIONS}, got {relation!r}")
        if distance not in DISTANCES:
            raise ValueError(f"distance must be one of {DISTANCES}, got {distance!r}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if learn_text_share and relation == "own":
            raise ValueError("relation 'own' has no text share to learn; use relation 'fused'")
        self.relation, self.distance, self.temperature = relation, distance, temperature
        self.text_share = nn.Parameter(torch.full((1,), float(text_share)), requires_grad=learn_text_share)
        self.register_buffer("image_mean", None if image_mean is None else image_mean.float())
        self.register_buffer("text_mean", None if text_mean is None else text_mean.float())
        self.bank = bank

    def forward(
        self,
        image_embeds: torch.Tensor,
        text_embeds: torch.Tensor,
        image_teacher: torch.Tensor,
        text_teacher: torch.Tensor,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the scalar loss and its parts.

        Args:
            image_embeds, text_embeds: the student's (N, D), normalised here.
            image_teacher, text_teacher: raw features (N, G_I), (N, G_T); no gradient reaches them.

        Raises:
            ValueError: not all have N rows.
        """
        counts = [len(side) for side in (image_embeds, text_embeds, image_teacher, text_teacher)]
        if len(set(counts)) > 1:
            said = ", ".join(map(str, counts))
            raise ValueError(f"the rows of the student and of both teachers must be as many, not {said}")
        rows = [
            image_embeds,
            text_embeds,
            _centred(image_teacher, self.image_mean),
            _centred(text_teacher, self.text_mean),
        ]
        columns = rows
        if self.bank is not None:
            columns = [torch.cat([current, earlier]) for current, earlier in zip(rows, self.bank.read())]
            if self.training:
                self.bank.write(*rows)
        images, texts, of_images, of_texts = map(_unit_pair, rows, columns)
        if self.relation == "own":
            parts = {
                "structure_image": self._compare(images, lambda block, _: _scores(of_images, block)),
                "structure_text": self._compare(texts, lambda block, _: _scores(of_texts, block)),
            }
            return (parts["structure_image"] + parts["structure_text"]) / 2, parts

        def target(block: slice, share: torch.Tensor) -> torch.Tensor:
            return share * _scores(of_texts, block) + (1 - share) * _scores(of_images, block)

        fused = _unit_pair(*[image + text for image, text in zip(images, texts)])
        loss = self._compare(fused, target)
        parts = {"structure": loss}
        if self.text_share.requires_grad:
            parts["balance"] = self._compare(of_images, target) + self._compare(of_texts, target)
            loss = loss + parts["balance"] / 2  # weights 2, 1, 1 of the paper
            parts["text_share"] = self.text_share.detach()[0]
        return loss, parts

    def _compare(self, vectors: list[torch.Tensor], target: Callable) -> torch.Tensor:
        """Mean distance of two relation matrices (N, N + M) off the diagonal; 0 where there is no pair.

        Args:
            vectors: unit vectors of the rows (N, D) and of the columns (N + M, D), whose cosines are compared.
            target: (block of rows, text share) -> what the cosines of the block should be.
        """
        rows, columns = (len(side) for side in vectors)
        pairs = max(1, rows * (columns - 1))

        def share(block: slice, text_share: torch.Tensor, *sides: torch.Tensor):
            difference = sides[0][block] @ sides[-1].t() - target(block, text_share)
            own = torch.arange(rows, device=difference.device)[block, None]
            difference = difference.masked_fill(own == torch.arange(columns, device=difference.device), 0.0)
            return difference.abs().sum() if self.distance == "mae" else (difference**2).sum()

        scale = self.temperature if self.distance == "mae" else self.temperature**2
        sides = vectors[:1] if vectors[0] is vectors[1] else vectors  # without a bank: one gradient to keep, not two
        return chunked_sum(share, rows, columns, self.text_share, *sides) / pairs / scale


def _unit_pair(rows: torch.Tensor, columns: torch.Tensor) -> list[torch.Tensor]:
    """Unit vectors of both; one and the same if rows are columns."""
    unit = F.normalize(rows.float(), dim=-1)
    return [unit, unit if columns is rows else F.normalize(columns.float(), dim=-1)]


def _scores(vectors: list[torch.Tensor], block: slice) -> torch.Tensor:
    return vectors[0][block] @ vectors[1].t()


@torch.no_grad()
def _centred(features: torch.Tensor, mean: torch.Tensor | None) -> torch.Tensor:
    features = features.detach().float()
    return features if mean is None else features - mean


class MemoryBank(nn.Module):
    """The last pairs of earlier batches, without gradient: relations then reach beyond the batch.

    They were embedded by the model as it was then. Its buffers are part of training checkpoints.

    Args:
        size: pairs kept.
        dim, image_dim, text_dim: D, G_I and G_T.
    """

    def __init__(self, size: int, dim: int, image_dim: int, text_dim: int):
        super().__init__()
        self.size = size
        for name, width in (("images", dim), ("texts", dim), ("image_teacher", image_dim), ("text_teacher", text_dim)):
            self.register_buffer(name, torch.zeros(size, width))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.long))

    def read(self) -> list[torch.Tensor]:
        """What is kept, M <= size rows each, newest first: images, texts, features of the image and text teacher."""
        return [column[: int(self.filled)] for column in self._columns()]

    @torch.no_grad()
    def write(self, *rows: torch.Tensor):
        """Put rows in front and forget the oldest."""
        for kept, new in zip(self._columns(), rows):
            kept.copy_(torch.cat([new.to(kept), kept])[: self.size])
        self.filled.copy_((self.filled + len(rows[0])).clamp(max=self.size))

    def _columns(self) -> tuple[torch.Tensor, ...]:
        return self.images, self.texts, self.image_teacher, self.text_teacher


class RepresentationLoss(nn.Module):
    """InfoNCE from a modality's student to its projected teacher, one direction (paper: IIC for images, TTC for texts).

    Args:
        teacher_dim, dim: G and D; the projection between them is learned.
        temperature: initial tau, learned within [0.01, 1].
    """

    def __init__(self, teacher_dim: int, dim: int, temperature: float = 0.07):
        super().__init__()
        self.projection = nn.Linear(teacher_dim, dim)
        self.temperature = new_temperature(temperature)

    def forward(self, embeds: torch.Tensor, teacher: torch.Tensor, image_ids: torch.Tensor) -> torch.Tensor:
        """Return the scalar loss of unit vectors (N, D), features (N, G) and ids (N,)."""
        projected = F.normalize(self.projection(teacher.detach().float()), dim=-1)
        return soft_positive_contrast(embeds, projected, image_ids, clamped(self.temperature))


def soft_positive_contrast(
    rows: torch.Tensor, columns: torch.Tensor, image_ids: torch.Tensor, temperature: torch.Tensor | float
) -> torch.Tensor:
    """Cross-entropy of each row over the columns; rows and columns of one image share the target equally."""
    rows, columns = checked_pairs(rows, columns, image_ids)
    temperature = torch.as_tensor(temperature, dtype=rows.dtype, device=rows.device).reshape(1)
    sums, _ = log_sums(rows, columns, temperature)
    return (sums - recomputed(target_scores, rows, columns, image_ids) / temperature).mean()


def cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Cosines of all pairs, (N, M) in float32; a zero row has cosine 0 with every other."""
    return F.normalize(rows.float(), dim=-1) @ F.normalize(columns.float(), dim=-1).t()


__all__ = [
    "MemoryBank",
    "RepresentationLoss",
    "StructureDistillationLoss",
    "cosines",
    "soft_positive_contrast",
]
