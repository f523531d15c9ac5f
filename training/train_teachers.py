"""`vsehub teachers --train_teachers`: fine-tune both teachers on the data, each within its own modality.

NT-Xent (Chen et al., ICML 2020) between two augmented looks at an image, and between two captions of one image, on the
mean of the backbone's tokens: the very feature that the teacher gives. No pair of an image and a text is seen. How the
paper trained its teachers is not published.
"""

from pathlib import Path

import torch
from datasets import Dataset as Rows
from torch import nn
from torch.nn import functional as F
from transformers import AutoImageProcessor, AutoTokenizer, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from ..data.rows import row_image
from ..modeling.towers import hold_batch_norm, image_tokens, load_tower
from .augmentation import AUGMENTATIONS, DrawnDataset
from .losses import nt_xent


class TwoLooks(DrawnDataset):
    """Two looks at each item."""

    def __init__(self, items, look, seed: int):
        super().__init__(seed)
        self.items, self.look = items, look

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, position: int) -> tuple:
        return self.look(self.items[position], self.rng(position))


class Siblings(nn.Module):
    """A backbone under NT-Xent; `forward(first, second)` takes the backbone's inputs of both looks."""

    def __init__(self, backbone, pool, temperature: float):
        super().__init__()
        self.backbone, self.pool, self.temperature = backbone, pool, temperature

    def forward(self, first: dict, second: dict) -> dict:
        """Return the loss."""
        hold_batch_norm(self.backbone)
        looks = (F.normalize(self.pool(self.backbone, inputs).float(), dim=-1) for inputs in (first, second))
        return {"loss": nt_xent(*looks, self.temperature)}


def pool_image(backbone, inputs: dict) -> torch.Tensor:
    """Mean of the image's tokens, (N, G_I)."""
    return image_tokens(backbone, inputs["pixel_values"]).mean(1)


def pool_text(backbone, inputs: dict) -> torch.Tensor:
    """Mean of the text's real tokens, (N, G_T)."""
    mask = inputs["attention_mask"][..., None]
    hidden = backbone(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
    return (hidden * mask).sum(1) / mask.sum(1)


def train_image_teacher(source: str, rows: Rows, out: Path, size: int, augmentation: str, settings: dict) -> str:
    """Fine-tune a vision backbone on two looks at each image; returns the folder, which `--image` takes."""
    processor = AutoImageProcessor.from_pretrained(source, backend="pil")
    augment = AUGMENTATIONS[augmentation]
    if augment is None:
        raise ValueError("two looks at an image must differ: choose --image_augmentation crop or rand_augment")

    def look(row, rng):
        picture = row_image(row)
        return augment(picture, size, rng), augment(picture, size, rng)

    def collate(items):
        pixels = (processor(list(images), return_tensors="pt")["pixel_values"] for images in zip(*items))
        return dict(zip(("first", "second"), ({"pixel_values": x} for x in pixels)))

    model = Siblings(load_tower(source, "vision_config"), pool_image, settings["temperature"])
    return _fit(model, TwoLooks(rows, look, settings["seed"]), collate, processor, out, settings)


def several_captions(rows: Rows) -> list[list[str]]:
    """The captions of the images that have two different ones.

    Raises:
        ValueError: fewer than two images have.
    """
    several = [captions for captions in rows["captions"] if len(set(captions)) > 1]
    if len(several) < 2:
        raise ValueError(
            f"a text teacher learns from images with two different captions, and there are {len(several)} of them: "
            "leave --train_teachers away"
        )
    return several


def train_text_teacher(source: str, rows: Rows, out: Path, settings: dict) -> str:
    """Fine-tune a text backbone on two captions of each image; returns the folder, which `--text` takes."""
    tokenizer = AutoTokenizer.from_pretrained(source)
    several = several_captions(rows)

    def look(captions, rng):
        return tuple(rng.choice(sorted(set(captions)), 2, replace=False).tolist())

    def collate(items):
        tokens = (
            tokenizer(list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt")
            for texts in zip(*items)
        )
        names = ("input_ids", "attention_mask")
        return dict(zip(("first", "second"), ({name: x[name] for name in names} for x in tokens)))

    model = Siblings(load_tower(source, "text_config"), pool_text, settings["temperature"])
    return _fit(model, TwoLooks(several, look, settings["seed"]), collate, tokenizer, out, settings)


def _fit(model: Siblings, dataset: TwoLooks, collate, preparation, out: Path, settings: dict) -> str:
    """Train unless it was done, from the last checkpoint on; save the backbone and what prepares its inputs."""
    if not (out / "config.json").exists():
        batch = min(settings["batch_size"], len(dataset))
        arguments = TrainingArguments(
            output_dir=str(out / "work"),
            num_train_epochs=settings["epochs"],
            per_device_train_batch_size=batch,
            learning_rate=settings["learning_rate"],
            warmup_steps=0.1,
            seed=settings["seed"],
            bf16=torch.cuda.is_available(),
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=20,
            dataloader_drop_last=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            remove_unused_columns=False,
            report_to="none",
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=dataset, data_collator=collate)
        work = out / "work"
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(work)) if work.is_dir() else None)
        preparation.save_pretrained(out)
        model.backbone.save_pretrained(out)  # last: config.json says that the folder is whole
    return str(out)
