"""Which features teach the structure of each training pair: those of `vsehub teachers`, or what the run has anyway."""

import torch
from datasets import Dataset
from torch import nn

from ...losses.objectives import StructuredObjective
from ...losses.structure import MemoryBank, RepresentationLoss, StructureDistillationLoss
from ..flags.arguments import StructureArguments
from .teacher_columns import read_teachers
from .tower_cache import TowerCache


class StructureTeachers:
    """Features of the image and the text teacher for structure-aware distillation.

    They come from the columns that `vsehub teachers` adds. A modality without a column is taught by what the run has
    anyway; nowhere else does one teacher take the part of another:

    - images: the scene vectors of PIR's prior, if they are cached (`--cache_vision True`);
    - texts: the embeddings of D2S-VSE's dense teacher, if they are a column (`--dense_teacher cached`).

    Args:
        rows: prepared rows.
        scenes: cached scene vectors, one per image and view, or None.
        dense_text_embeds: (R, D) of the dense teacher, or None.

    Raises:
        ValueError: a modality has no teacher.
    """

    def __init__(self, rows: Dataset, scenes: TowerCache | None = None, dense_text_embeds: torch.Tensor | None = None):
        columns = read_teachers(rows)
        self.image_features, self.text_features = columns.image, columns.text
        self.scenes, self.dense_text_embeds = scenes, dense_text_embeds
        image_is_taught = self.image_features is not None or scenes is not None
        text_is_taught = self.text_features is not None or dense_text_embeds is not None
        if not (image_is_taught and text_is_taught):
            raise ValueError(
                "--structure_weight and --representation_*_weight need features of both teachers in the data: make "
                "them with `vsehub teachers DATA --vision MODEL --text MODEL --out DATA2` and train on DATA2"
            )

    def image(self, row: int, view: int) -> torch.Tensor:
        """The image teacher's features (G_I,) of one view of a row's picture."""
        if self.image_features is None:
            return self.scenes[row * self.scenes.views + view][0]
        views = self.image_features[row]
        return views[view % len(views)]

    def text(self, row: int, caption: int) -> torch.Tensor:
        """The text teacher's features (G_T,) of one caption of a row."""
        return self.dense_text_embeds[row] if self.text_features is None else self.text_features[row][caption]

    def means(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Means of the features over the dataset, (G_I,) and (G_T,)."""
        if self.image_features is not None:
            image = self.image_features.float().mean((0, 1))
        else:
            image = torch.stack([self.scenes[item][0].float() for item in range(len(self.scenes))]).mean(0)
        if self.text_features is not None:
            text = torch.cat([captions.float() for captions in self.text_features]).mean(0)
        else:
            text = self.dense_text_embeds.mean(0)
        return image, text


def structured(
    objective: nn.Module, args: StructureArguments, means: tuple[torch.Tensor, torch.Tensor], dim: int
) -> StructuredObjective:
    """Wrap an objective as the arguments say.

    Args:
        objective: of a stage.
        args: of the structure.
        means: of the image and the text teacher's features over the dataset, (G_I,) and (G_T,).
        dim: D.
    """
    image, text = (mean.clone() for mean in means)  # nested widths each have their own, or they could not be saved
    bank = MemoryBank(args.structure_bank, dim, len(image), len(text)) if args.structure_bank else None
    centred = args.structure_centre == "dataset"
    loss = StructureDistillationLoss(
        relation=args.structure_relation,
        text_share=args.text_share,
        learn_text_share=args.learn_text_share,
        image_mean=image if centred else None,
        text_mean=text if centred else None,
        bank=bank,
    )
    representation = {}
    if args.representation_image_weight:
        representation["image"] = (RepresentationLoss(len(image), dim), args.representation_image_weight)
    if args.representation_text_weight:
        representation["text"] = (RepresentationLoss(len(text), dim), args.representation_text_weight)
    return StructuredObjective(objective, loss, args.structure_weight, representation)


__all__ = ["StructureTeachers", "structured"]
