"""Training items of a source that is read as it comes; an item follows from the seed and its number alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...data.arguments import DataArguments, is_dense_file
from ...data.rows import image_source, row_image
from ...data.streams import Share, Stream, listed, picture_number
from ...files.whole import write_json
from ...processing.pixels import BadImageError
from .pairs import Pairs

SETTINGS = "stream.json"  # in the folder of a stage: what the order of a stream follows from


class StreamedPairs(Pairs):
    """One item per row: its picture, and one of its captions, drawn anew each time, or its dense text.

    Batch b of a process comes from share b of its workers, so that each worker reads its share alone, and goes on at
    any batch. `image_id` is made of the picture, so that equal pictures are never each other's negatives.

    Args:
        stream: what is read.
        pairs: of an epoch, of all processes; rounded down to whole batches of all shares.
        batch_size: of one process.
        shares: processes times workers.
        buffer: rows that are mixed.
        **kwargs: of `Pairs`.

    Raises:
        ValueError: an epoch is shorter than a batch of every share.
    """

    def __init__(self, stream: Stream, *, pairs: int, batch_size: int, shares: int, buffer: int, **kwargs):
        super().__init__(**kwargs)
        self.batch_size, self.epoch_batches = batch_size, pairs // (batch_size * shares)
        self.shares = [Share(stream, number, shares, buffer, self.seed) for number in range(shares)]
        if not self.epoch_batches:
            raise ValueError(
                f"an epoch of {pairs} pairs is less than one batch of {batch_size} for each of {shares} processes and "
                "workers: set --pairs_per_epoch higher, or take fewer"
            )

    def __len__(self) -> int:
        return self.epoch_batches * self.batch_size * len(self.shares)

    def name_of(self, position: int) -> str:
        """What a user calls an item; the stream is not read for it."""
        share, sample = self._key(position)
        return f"row {sample} of share {share} of the stream"

    def _key(self, position: int) -> tuple[int, int]:
        """Share and sample of an item of this epoch."""
        batch, place = divmod(position, self.batch_size)
        turn, share = divmod(batch, len(self.shares))
        return share, (self.epoch * self.epoch_batches + turn) * self.batch_size + place

    def __getitem__(self, position: int) -> dict:
        if not 0 <= position < len(self):
            raise IndexError(f"item {position} of {len(self)}")
        return super().__getitem__(position)

    def _others(self, key: tuple[int, int]) -> Iterator[tuple[int, int]]:
        share, sample = key
        return ((share, other) for other in self.shares[share].others(sample))

    def _row(self, key: tuple[int, int]) -> dict:
        share, sample = key
        return self.shares[share][sample]

    def _item(self, key: tuple[int, int]) -> dict:
        share, sample = key
        row = self.shares[share][sample]
        rng = np.random.default_rng((self.seed, share, sample))
        captions = [text for text in listed(row["captions"]) if text and text.strip()]
        dense = row.get("dense_text") or " ".join(text.strip() for text in captions)
        if not captions or not dense.strip():
            raise BadImageError(f"image {row['image_id']}: no caption")
        image, picture = row_image(row), picture_number(image_source(row["image"]))
        item: dict[str, Any] = {"image_id": picture}
        item["image"] = image if self.augment is None else self.augment(image, self.side, rng)
        if self.texts == "captions":
            item["input_ids"] = self._tokens(captions[int(rng.integers(len(captions)))], rng)
        else:
            item["input_ids"] = self._sampled(dense, rng) if self.dense_sampling else self._tokens(dense, rng)
        if row.get("label") is not None:
            item["scene_label"] = picture_number(row["label"])
        elif "label" in row:
            item["scene_label"] = picture
        if self.with_dense:
            item["dense_input_ids"] = self._tokens(dense, rng)
        return item


def keep_order(folder: Path, settings: dict[str, int], resumed: bool, written: bool = True):
    """Write down what the order of a stream follows from, or refuse to go on with another order.

    Args:
        folder: of the stage.
        settings: of this run.
        resumed: whether it goes on from a checkpoint.
        written: whether this process writes.

    Raises:
        ValueError: the run that wrote the checkpoint had others, or wrote it in another folder.
    """
    path = folder / SETTINGS
    if not resumed:
        if written:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, settings)
        return
    if not path.exists():
        raise ValueError(
            f"{folder} does not say in which order its stream came, so a run cannot go on there: name the "
            "--output_dir of the run that wrote the checkpoint, or leave --resume_from_checkpoint out"
        )
    before = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{name} was {before.get(name, 'not set')}, and is {now}" for name, now in settings.items()
             if before.get(name) != now]  # fmt: skip
    if other:
        raise ValueError(f"{folder}: the stream would come in another order ({'; '.join(other)}): set it as it was")


def check_streaming(stage: str, data: DataArguments, training, objective):
    """Refuse what needs all rows at once, where they are read as they come.

    Raises:
        ValueError: with the flag and the remedy.
    """
    if not data.streaming:
        if data.pairs_per_epoch is not None:
            raise ValueError(
                f"--pairs_per_epoch {data.pairs_per_epoch} is of --streaming True: without it, an epoch is all rows; "
                "leave it out (--max_train_images reads fewer)"
            )
        return
    online = getattr(objective, "dense_teacher", "online") == "online" or not objective.distill_weight
    refused = {
        "--stages prior": stage == "prior",
        "--cache_vision": training.cache_vision,
        "--cache_text": training.cache_text,
        "--structure_weight and --representation_*_weight": objective.needs_teachers,
        "--dense_teacher cached (take online)": stage == "finetune" and not online,
        "--check_images all": training.check_images == "all",
        "--max_train_images": data.max_train_images is not None,
        "--image_root": data.image_root is not None,
        "--label_column prefix": data.label_column == "prefix",
        f"--dense_text {data.dense_text}": is_dense_file(data.dense_text),
    }
    wrong = [name for name, given in refused.items() if given]
    if wrong:
        raise ValueError(
            f"--streaming reads rows as they come, and {', '.join(wrong)} needs all of them: leave one out"
        )


__all__ = ["StreamedPairs", "check_streaming", "keep_order"]
