"""Structure-aware distillation: keep the geometry that uni-modal teachers give (Yang et al., IEEE TIP 2024).

Where one modality is poorer than the other, exact matching bends the shared space. With cosine Grams R_I, R_T of two
frozen teachers and S of the student, the loss is a distance between S and what the teachers say, off the diagonal.

Everything here is training only: its state lives in the objective, never in the model. Losses take embeddings and ids.
Shapes: N rows of the global batch, D shared space, G_I and G_T widths of the teachers.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .losses import held, new_temperature

RELATIONS = ("own", "fused", "inter", "intra")
DISTANCES = ("mae", "mse", "kl", "rkd")


class StructureDistillationLoss(nn.Module):
    """Distance between the student's relations and the teachers', mean over pairs of rows.

    Args:
        relation: which of the student's relations are compared with what.
            `own`: image Gram with R_I and text Gram with R_T, half each; needs no balance between the teachers.
            `intra`: both Grams with the fused target E = share R_T + (1 - share) R_I.
            `inter`: the image-text cosines with E.
            `fused`: the Gram of normalised v + t with E. The paper's student fuses with a cross-encoder trained by
            image-text matching, which is out of scope here; the sum of the two embeddings stands in for its vector.
        distance: `mae` (paper), `mse`, `kl` (of row softmaxes at 0.1) or `rkd` (of Euclidean distances, each divided by
            their mean; Park et al., CVPR 2019).
        text_share: lambda, the text teacher's share in E.
        learn_text_share: the paper's way. The two terms that tie E to the teachers (`balance` in the parts) then sum to
            the same for every share in [0, 1], so they pass it no gradient there: the share drifts to the teacher that
            the student resembles already. It is not clamped, as in the official code.
        temperature: tau_2; divides the cosines in `mae` and `mse`, where it is but a weight. Fixed: a learned one only
            grows, and switches the loss off.
        centre: subtract from the teachers' features their mean over the `dataset` (set by `set_means`), over the
            `batch`, or `none` (official code). Uncentred, post-ReLU and [CLS] features have cosines far above 0.
        mask_same_image: leave out pairs of captions of one image (official code keeps them).
        bank: pairs of earlier batches; each row then relates to them as well.
    """

    def __init__(
        self,
        relation: str = "own",
        distance: str = "mae",
        text_share: float = 0.5,
        learn_text_share: bool = False,
        temperature: float = 0.07,
        centre: str = "dataset",
        mask_same_image: bool = False,
        bank: "MemoryBank | None" = None,
    ):
        super().__init__()
        for name, value, allowed in (
            ("relation", relation, RELATIONS),
            ("distance", distance, DISTANCES),
            ("centre", centre, ("dataset", "batch", "none")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if learn_text_share and relation == "own":
            raise ValueError("relation 'own' has no balance between the teachers: there is no share to learn")
        self.relation, self.distance, self.temperature = relation, distance, temperature
        self.centre, self.mask_same_image = centre, mask_same_image
        share = torch.full((1,), float(text_share))
        self.text_share = nn.Parameter(share, requires_grad=learn_text_share)
        self.bank = bank
        self.register_buffer("image_mean", None)
        self.register_buffer("text_mean", None)

    def set_means(self, teacher_image: torch.Tensor, teacher_text: torch.Tensor):
        """Keep the teachers' means over the dataset: of (rows, G_I) and (rows, G_T) or the means themselves."""
        self.image_mean, self.text_mean = (
            x.float().reshape(-1, x.shape[-1]).mean(0) for x in (teacher_image, teacher_text)
        )

    def forward(self, image_embeds, text_embeds, teacher_image, teacher_text, image_ids=None):
        """Return the scalar loss and its parts.

        Args:
            image_embeds, text_embeds: the student's (N, D), normalised here.
            teacher_image, teacher_text: raw features (N, G_I), (N, G_T); no gradient reaches them.
            image_ids: (N,), for `mask_same_image`.

        Raises:
            ValueError: `centre="dataset"` without means.
        """
        if image_ids is None:
            image_ids = torch.arange(len(image_embeds), device=image_embeds.device)
        rows = [image_embeds, text_embeds, *self._centred(teacher_image, teacher_text)]
        columns, column_ids = rows, image_ids
        if self.bank is not None:
            *earlier, earlier_ids = self.bank.read()
            columns, column_ids = [torch.cat(pair) for pair in zip(rows, earlier)], torch.cat([image_ids, earlier_ids])
            if self.training:
                self.bank.write(*rows, image_ids)
        mask = self._pairs(image_ids, column_ids)
        images, texts, of_images, of_texts = (cosines(*pair) for pair in zip(rows, columns))
        if self.relation == "own":
            parts = {
                "structure_image": self._compare(images, of_images, mask),
                "structure_text": self._compare(texts, of_texts, mask),
            }
            return (parts["structure_image"] + parts["structure_text"]) / 2, parts
        target = self.text_share * of_texts + (1 - self.text_share) * of_images
        if self.relation == "fused":
            fused = [sum(F.normalize(x.float(), dim=-1) for x in both[:2]) for both in (rows, columns)]
            loss = self._compare(cosines(*fused), target, mask)
        elif self.relation == "inter":
            loss = self._compare(cosines(rows[0], columns[1]), target, mask)
        else:
            loss = (self._compare(images, target, mask) + self._compare(texts, target, mask)) / 2
        parts = {"structure": loss}
        if self.text_share.requires_grad:
            parts["balance"] = self._compare(of_images, target, mask) + self._compare(of_texts, target, mask)
            loss = loss + parts["balance"] / 2  # weights 2, 1, 1 of the paper
            parts["text_share"] = self.text_share.detach()[0]
        return loss, parts

    @torch.no_grad()
    def _centred(self, teacher_image, teacher_text):
        teacher_image, teacher_text = teacher_image.detach().float(), teacher_text.detach().float()
        if self.centre == "dataset":
            if self.image_mean is None:
                raise ValueError("centre='dataset' needs the teachers' means: call set_means, or centre='batch'")
            return teacher_image - self.image_mean, teacher_text - self.text_mean
        if self.centre == "batch":
            return teacher_image - teacher_image.mean(0), teacher_text - teacher_text.mean(0)
        return teacher_image, teacher_text

    def _pairs(self, row_ids, column_ids) -> torch.Tensor:
        """Which pairs count, as 0 and 1 (N, N + bank): boolean indexing would cost more than the rest."""
        mask = 1.0 - torch.eye(len(row_ids), len(column_ids), device=row_ids.device)
        if self.mask_same_image:
            mask = mask * (row_ids[:, None] != column_ids[None]).float()
        return mask

    def _compare(self, found: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Distance of two relation matrices (N, N + bank) over the pairs of `mask`; 0 where there is no pair."""
        total = mask.sum().clamp(min=1)
        if self.distance == "mae":
            return ((found - target).abs() * mask).sum() / total / self.temperature
        if self.distance == "mse":
            return ((found - target) ** 2 * mask).sum() / total / self.temperature**2
        if self.distance == "kl":
            hidden = mask == 0
            if hidden.all():
                return found.sum() * 0.0
            logs, wanted = ((x / 0.1).masked_fill(hidden, -1e4).log_softmax(1) for x in (found, target))
            return F.kl_div(logs, wanted, log_target=True, reduction="batchmean")
        lengths = [(2 - 2 * x).clamp(min=1e-8).sqrt() for x in (found, target)]
        lengths = [x / ((x * mask).sum() / total).clamp(min=1e-8) for x in lengths]
        return (F.smooth_l1_loss(*lengths, reduction="none") * mask).sum() / total


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
        for name, width in (("images", dim), ("texts", dim), ("teacher_image", image_dim), ("teacher_text", text_dim)):
            self.register_buffer(name, torch.zeros(size, width))
        self.register_buffer("image_ids", torch.zeros(size, dtype=torch.long))
        self.register_buffer("filled", torch.zeros(1, dtype=torch.long))

    def read(self) -> list[torch.Tensor]:
        """What is kept, M <= size rows each, newest first: images, texts, both teachers' features, image ids."""
        return [x[: int(self.filled)] for x in self._columns()]

    @torch.no_grad()
    def write(self, *rows: torch.Tensor):
        """Put rows in front and forget the oldest."""
        for kept, new in zip(self._columns(), rows):
            kept.copy_(torch.cat([new.to(kept), kept])[: self.size])
        self.filled.copy_((self.filled + len(rows[0])).clamp(max=self.size))

    def _columns(self):
        return self.images, self.texts, self.teacher_image, self.teacher_text, self.image_ids


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
        return soft_positive_contrast(embeds.float(), projected, image_ids, held(self.temperature))


def soft_positive_contrast(rows, columns, image_ids, temperature) -> torch.Tensor:
    """Cross-entropy of each row over the columns; rows and columns of one image share the target equally."""
    target = (image_ids[:, None] == image_ids[None]).to(rows.dtype)
    return F.cross_entropy(rows @ columns.t() / temperature, target / target.sum(1, keepdim=True))


def cosines(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Cosines of all pairs, (N, M) in float32; a zero row has cosine 0 with every other."""
    return F.normalize(rows.float(), dim=-1) @ F.normalize(columns.float(), dim=-1).t()


def gram(features: torch.Tensor) -> torch.Tensor:
    """Cosines of all pairs of rows, (N, N)."""
    return cosines(features, features)


__all__ = [
    "MemoryBank",
    "RepresentationLoss",
    "StructureDistillationLoss",
    "cosines",
    "gram",
    "soft_positive_contrast",
]
