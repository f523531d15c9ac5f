"""PIR's prior: a scene classifier on any vision backbone; its backbone becomes the frozen instruction encoder.

The official code instructs with a ResNet-50 whose weights never load (a non-strict load hides it), so with noise. Here
a weight that does not load is an error, the classifier's accuracy on held-out images is reported, and its batch-norm
statistics stay what they were when it instructs.
"""

from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoModelForImageClassification, PreTrainedModel
from transformers.image_processing_utils import BaseImageProcessor

from ..data.rows import row_image
from ..modeling.towers import copy_tower, hold_batch_norm, load_tower
from ..processing.pixels import BadImageError
from ..processing.processing_dual_encoder import square_image_processor
from .inputs.augmentation import AUGMENTATIONS, DrawnDataset
from .inputs.bad_pictures import REMEDY, BadPictures, replacements
from .saving.checkpoints import WholeCheckpoints
from .splits import Splits
from .stage_arguments import StageArguments


class SceneDataset(DrawnDataset):
    """Pictures and their classes."""

    def __init__(
        self,
        rows: Dataset,
        image_processor: BaseImageProcessor,
        classes: list[str],
        augmentation: str = "none",
        seed: int = 0,
        bad_pictures: BadPictures | None = None,
    ):
        super().__init__(seed)
        self.bad_pictures = bad_pictures or BadPictures()
        self.rows, self.image_processor = rows, image_processor
        self.targets = [classes.index(label) for label in rows["label"]]
        self.augment = AUGMENTATIONS[augmentation]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, position: int) -> dict:
        try:
            return self.bad_pictures.item(position, replacements(self, position), self._item, self.rows.__getitem__)
        except BadImageError as error:
            raise ValueError(f"{error}{REMEDY}") from error

    def _item(self, position: int) -> dict:
        image = row_image(self.rows[position])
        if self.augment is not None:
            image = self.augment(image, self.image_processor.size["height"], self.rng(position))
        pixels = self.image_processor(image, return_tensors="pt")["pixel_values"][0]
        return {"pixel_values": pixels, "labels": self.targets[position]}


class SceneTrainer(WholeCheckpoints):
    """Trainer whose resume and best model keep every weight, and whose accuracy counts every image.

    Some published backbones have their batch-norm folded into the weights (mean 0, variance 1): in training mode, their
    features would vanish. So the statistics are fixed unless the arguments say otherwise.
    """

    hold_batch_norm = True

    def compute_loss(self, model: nn.Module, inputs: dict, *args, **kwargs) -> torch.Tensor | tuple:
        """Cross-entropy."""
        if model.training and self.hold_batch_norm:
            hold_batch_norm(model)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Keep the last, smaller batch, which the stock Trainer drops from evaluation, too."""
        drop, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = drop


def train_prior(splits: Splits, args: StageArguments) -> tuple[PreTrainedModel, BaseImageProcessor, dict[str, float]]:
    """Fine-tune `args.model.instruction` on the training rows' labels, and select on the evaluation rows' accuracy.

    Returns:
        The classifier (`AutoModelForImageClassification`), its image processor and its metrics: `eval_accuracy` in per
        cent.

    Raises:
        ValueError: no labels, a class that only the evaluation rows have, or weights that do not load.
    """
    if "label" not in splits.evaluation.column_names:
        raise ValueError(
            f"{args.data.eval_split} has no scene classes, so the prior's accuracy cannot be measured there"
        )
    train, held_out = (labelled(rows) for rows in (splits.train, splits.evaluation))
    classes = sorted(set(train["label"]))
    unknown = sorted(set(held_out["label"]) - set(classes))
    if unknown:
        raise ValueError(f"{args.data.eval_split} has scene classes that {args.data.train_split} lacks: {unknown[:5]}")
    model, image_processor = build_classifier(args.model.instruction, classes, args.model.image_size)
    # Some classifiers take `num_items_in_batch` of Trainer and do not count by it (ResNet): their mean would
    # be multiplied by the accumulation steps and by the processes.
    model.accepts_loss_kwargs = False
    args.training.greater_is_better = True  # the flags say what selects the retrieval model
    trainer = SceneTrainer(
        model=model,
        args=args.for_trainer(),
        processing_class=image_processor,
        train_dataset=SceneDataset(
            train,
            image_processor,
            classes,
            args.data.image_augmentation,
            args.training.seed,
            BadPictures(args.data.on_bad_sample, args.root, args.data.train_split),
        ),
        eval_dataset=SceneDataset(held_out, image_processor, classes),
        compute_metrics=lambda output: {
            "accuracy": 100.0 * float((output.predictions.argmax(-1) == output.label_ids).mean())
        },
    )
    trainer.hold_batch_norm = args.model.freeze_vision_batch_norm
    trainer.train(resume_from_checkpoint=args.checkpoint)
    return trainer.model, image_processor, trainer.evaluate()


def labelled(rows: Dataset) -> Dataset:
    """The rows that have a scene class."""
    known = [row for row, label in enumerate(rows["label"]) if label]
    return rows if len(known) == len(rows) else rows.select(known)


def build_classifier(source: str, classes: list[str], image_size: int) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A classifier on a pretrained backbone, every weight of which is loaded, and its image processor.

    Raises:
        ValueError: weights that do not load, or a backbone of which transformers has no classifier.
    """
    tower = load_tower(source, "vision_config")
    config = tower.config
    config.num_labels = len(classes)
    config.id2label, config.label2id = dict(enumerate(classes)), {name: i for i, name in enumerate(classes)}
    try:
        model = AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except ValueError:
        raise ValueError(
            f"{source}: transformers has no image classifier on a {config.model_type}; choose another backbone"
        ) from None
    copy_tower(tower, getattr(model, model.base_model_prefix), source)
    pictures = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    return model, square_image_processor(image_size, pictures.image_mean, pictures.image_std)
