"""`vsehub teachers --train_teachers`: fine-tune both teachers on the data, each within its own modality.

NT-Xent (Chen et al., ICML 2020) between two augmented views of an image, and between two captions of one image, on the
mean of the backbone's tokens, which is the feature that the teacher gives. Neither sees a pair of image and text. How
the paper trained its teachers is not published.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset as Rows
from torch import nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoTokenizer, TrainingArguments

from ..data.rows import row_image
from ..files.whole import recover, whole_folder
from ..losses.contrastive import nt_xent
from ..modeling.towers import hold_batch_norm, image_tokens, load_tower, run_text_tower
from ..processing.batching import tokenize
from .flags.launch import check_launch
from .inputs.augmentation import AUGMENTATIONS, DrawnDataset
from .saving.checkpoints import SealedCheckpoints, newest_whole, refuse_non_finite


class TwoViews(DrawnDataset):
    """Two views of each item; `draw` makes them from the item and a random generator."""

    def __init__(self, items: Sequence, draw: Callable[[Any, np.random.Generator], tuple], seed: int):
        super().__init__(seed)
        self.items, self.draw = items, draw

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple:
        return self.draw(self.items[position], self.rng(position))


class TwoViewModel(nn.Module):
    """A backbone under NT-Xent; `forward(first, second)` takes the backbone's inputs of both views."""

    def __init__(
        self,
        backbone: nn.Module,
        pool: Callable[[nn.Module, dict[str, torch.Tensor]], torch.Tensor],
        temperature: float,
    ):
        super().__init__()
        self.backbone, self.pool, self.temperature = backbone, pool, temperature

    def forward(self, first: dict, second: dict) -> dict:
        """Return the loss."""
        hold_batch_norm(self.backbone)
        one, other = (F.normalize(self.pool(self.backbone, inputs).float(), dim=-1) for inputs in (first, second))
        return {"loss": nt_xent(one, other, self.temperature)}


def pool_image(backbone: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean of the image's tokens, (N, G_I)."""
    return image_tokens(backbone, inputs["pixel_values"]).mean(1)


def pool_text(backbone: nn.Module, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean of the text's real tokens, (N, G_T)."""
    _, hidden = run_text_tower(backbone, inputs["input_ids"], inputs["attention_mask"])
    mask = inputs["attention_mask"][..., None]
    return (hidden * mask).sum(1) / mask.sum(1)


def train_image_teacher(source: str, rows: Rows, out: Path, size: int, augmentation: str, settings: dict) -> str:
    """Fine-tune a vision backbone on two views of each image; return its folder.

    Args:
        source: Hub id or folder of the backbone.
        rows: prepared rows.
        out: where it is saved; a backbone that is there is not trained again.
        size: pixels of a side of the augmented views.
        augmentation: a name of `AUGMENTATIONS`, not `none`.
        settings: `epochs`, `batch_size`, `learning_rate`, `temperature`, `seed`, `use_cpu`.

    Raises:
        ValueError: an augmentation that changes nothing.
    """
    processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
    augment = AUGMENTATIONS[augmentation]
    if augment is None:
        raise ValueError("two views of an image must differ: set --image_augmentation to crop or rand_augment")

    def draw(row: dict, rng: np.random.Generator) -> tuple:
        picture = row_image(row)
        return augment(picture, size, rng), augment(picture, size, rng)

    def collate(items: list[tuple]) -> dict[str, dict[str, torch.Tensor]]:
        first, second = (processor(list(images), return_tensors="pt")["pixel_values"] for images in zip(*items))
        return {"first": {"pixel_values": first}, "second": {"pixel_values": second}}

    model = TwoViewModel(load_tower(source, "vision_config"), pool_image, settings["temperature"])
    return _fit(model, TwoViews(rows, draw, settings["seed"]), collate, processor, out, settings)


def several_captions(rows: Rows) -> list[list[str]]:
    """The captions of the images that have two different ones.

    Raises:
        ValueError: fewer than two images have.
    """
    several = [captions for captions in rows["captions"] if len(set(captions)) > 1]
    if len(several) < 2:
        raise ValueError(
            f"a text teacher learns from images with two different captions, and the data have {len(several)} of them: "
            "leave out --train_teachers"
        )
    return several


def train_text_teacher(source: str, rows: Rows, out: Path, settings: dict) -> str:
    """Fine-tune a text backbone on two captions of each image; return its folder.

    Arguments are those of `train_image_teacher`, errors those of `several_captions`.
    """
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    several = several_captions(rows)

    def draw(captions: list[str], rng: np.random.Generator) -> tuple:
        return tuple(rng.choice(sorted(set(captions)), 2, replace=False).tolist())

    def collate(items: list[tuple]) -> dict[str, dict[str, torch.Tensor]]:
        views = {}
        for name, texts in zip(("first", "second"), zip(*items)):
            tokens = tokenize(tokenizer, texts, max_length=128)
            views[name] = {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}
        return views

    model = TwoViewModel(load_tower(source, "text_config"), pool_text, settings["temperature"])
    return _fit(model, TwoViews(several, draw, settings["seed"]), collate, tokenizer, out, settings)


def _fit(model: TwoViewModel, dataset: TwoViews, collate: Callable, preparation: Any, out: Path, settings: dict) -> str:
    """Train from the last checkpoint on, unless it is done; save the backbone with its image processor or tokenizer."""
    recover(out)
    if not (out / "config.json").exists():
        work = out.with_name(f"{out.name}.work")
        batch, gpu = min(settings["batch_size"], len(dataset)), torch.cuda.is_available() and not settings["use_cpu"]
        arguments = TrainingArguments(
            output_dir=str(work),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=batch,
            learning_rate=settings["learning_rate"],
            warmup_steps=0.1,
            seed=settings["seed"],
            use_cpu=not gpu,
            bf16=gpu,
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=20,
            dataloader_drop_last=True,
            dataloader_pin_memory=gpu,
            remove_unused_columns=False,
            report_to="none",
        )
        check_launch(arguments)
        trainer = SealedCheckpoints(model=model, args=arguments, train_dataset=dataset, data_collator=collate)
        newest = newest_whole(work)
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        refuse_non_finite([model])
        with whole_folder(out) as draft:
            preparation.save_pretrained(draft)
            model.backbone.save_pretrained(draft)
        shutil.rmtree(work, ignore_errors=True)
    return str(out)
