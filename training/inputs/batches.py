"""A training step's share of one process: named tensors of B pairs, and how items become them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any

import torch

from ...processing.batching import pad_ids, pad_states
from ...processing.processing_dual_encoder import DualEncoderProcessor


@dataclass(frozen=True)
class PixelScale:
    """The last step of an image processor, from bytes to a tower's inputs: (x * factor - mean) / std, by channel.

    It is done on the device of the model: bytes are a quarter of what would otherwise pass through the processes that
    load items, through page-locked memory, and to a GPU.

    Args:
        factor, mean, std: the image processor's `rescale_factor`, `image_mean`, `image_std`.
    """

    factor: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes (B, 3, S, S) to floats, which on a CPU are equal to the image processor's to the bit."""
        mean, std = _by_channel(self, pixels.device)
        return pixels.float().div_(1 / self.factor).sub_(mean).div_(std)

    @classmethod
    def of(cls, image_processor: Any) -> "PixelScale | None":
        """The last step of an image processor; None if it is another one, as a trial shows."""
        from PIL import Image

        size = getattr(image_processor, "size", None) or {}
        try:
            side = size["height"], size["width"]
            scale = cls(
                image_processor.rescale_factor, tuple(image_processor.image_mean), tuple(image_processor.image_std)
            )
            trial = torch.arange(3 * side[0] * side[1], dtype=torch.int64) * 7 % 256
            picture = [Image.fromarray(trial.reshape(*side, 3).to(torch.uint8).numpy())]
            pixels = _bytes_of(image_processor, picture)
            whole = image_processor(picture, return_tensors="pt")["pixel_values"]
            same = pixels.dtype == torch.uint8 and torch.allclose(scale(pixels), whole, rtol=0, atol=1e-6)
        except (AttributeError, KeyError, TypeError, ValueError):  # it has no such settings, or refuses to leave them
            return None
        return scale if same else None


def _bytes_of(image_processor: Any, images: list) -> torch.Tensor:
    """What an image processor makes of pictures before its last step."""
    return image_processor(images, do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]


@cache
def _by_channel(scale: PixelScale, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in (scale.mean, scale.std))
    return mean, std


@dataclass(eq=False)
class PairBatch:
    """B pairs; row i of every field belongs together. A field that a run does not need is None.

    `to` is what accelerate calls to place a batch on a device, `pin_memory` what the DataLoader calls, and `len`, `in`
    and `[]` are what Trainer asks.

    Args:
        image_ids: (B,) row numbers of the images, the same for captions of one image.
        pixel_values: (B, 3, S, S): bytes as they were loaded, which `to` makes floats by `pixel_scale`; or (B, N, C):
            what enters the first trained block of a vision tower (`VisionTail`).
        vision_hidden_states: (B, N, C) of a cached vision tower, instead of `pixel_values`.
        scene_states: (B, C) of PIR's prior, cached with the vision tower.
        input_ids: (B, L).
        text_hidden_states: (B, L, C) of a cached text tower, instead of `input_ids`.
        attention_mask: (B, L) of the texts.
        scene_labels: (B,) numbers of the scene classes.
        image_teacher, text_teacher: (B, G_I), (B, G_T), features for structure-aware distillation.
        dense_text_embeds: (B, D) of D2S-VSE's dense teacher, made before training.
        dense_input_ids, dense_attention_mask: (B, L') of the dense texts that the dense teacher reads in this step.
        pixel_scale: how bytes of `pixel_values` become floats.
    """

    image_ids: torch.Tensor
    pixel_values: torch.Tensor | None = None
    vision_hidden_states: torch.Tensor | None = None
    scene_states: torch.Tensor | None = None
    input_ids: torch.Tensor | None = None
    text_hidden_states: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    scene_labels: torch.Tensor | None = None
    image_teacher: torch.Tensor | None = None
    text_teacher: torch.Tensor | None = None
    dense_text_embeds: torch.Tensor | None = None
    dense_input_ids: torch.Tensor | None = None
    dense_attention_mask: torch.Tensor | None = None
    pixel_scale: PixelScale | None = None

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """The fields that the model takes, pictures as floats."""
        batch = self._in_floats()
        return {name: batch[name] for name in MODEL_INPUTS if name in batch}

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PairBatch":
        """Apply a function to every tensor."""
        return replace(self, **{name: function(tensor) for name, tensor in self._tensors()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PairBatch":
        """Move every tensor to a device, without waiting for page-locked memory; there, pictures become floats."""
        return self.map(lambda tensor: _moved(tensor, device, non_blocking))._in_floats()

    def pin_memory(self) -> "PairBatch":
        """Copy every tensor to page-locked memory."""
        return self.map(torch.Tensor.pin_memory)

    def rows(self, start: int, stop: int) -> "PairBatch":
        """Some of the pairs."""
        parts = {name: tensor[start:stop] for name, tensor in self._tensors()}
        return PairBatch(**parts, pixel_scale=self.pixel_scale)

    def _in_floats(self) -> "PairBatch":
        """The same pairs, their pictures as a tower takes them."""
        if self.pixel_scale is None or self.pixel_values.dtype != torch.uint8:
            return self
        return replace(self, pixel_values=self.pixel_scale(self.pixel_values))

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        return [(field.name, self[field.name]) for field in fields(self) if torch.is_tensor(self[field.name])]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, name: str) -> bool:
        return getattr(self, name, None) is not None

    def __getitem__(self, name: str) -> torch.Tensor:
        return getattr(self, name)


MODEL_INPUTS = (
    "pixel_values",
    "vision_hidden_states",
    "scene_states",
    "input_ids",
    "text_hidden_states",
    "attention_mask",
)
READ_BY_MODELS = (*MODEL_INPUTS, "dense_input_ids", "dense_attention_mask")


class HostBatch(PairBatch):
    """A batch whose pictures and texts stay on the host: they go to the device a chunk at a time."""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "HostBatch":
        """Move the other tensors to a device."""
        tensors = {name: tensor for name, tensor in self._tensors() if name not in READ_BY_MODELS}
        return replace(self, **{name: _moved(tensor, device, non_blocking) for name, tensor in tensors.items()})


class PairCollator:
    """Items of a `PairDataset` to one `PairBatch`; texts are padded to the longest.

    Args:
        processor: of the model.
        batch_type: `HostBatch` for gradient caching.
    """

    def __init__(self, processor: DualEncoderProcessor, batch_type: type[PairBatch] = PairBatch):
        self.processor, self.batch_type = processor, batch_type
        self.pixel_scale = PixelScale.of(processor.image_processor)

    def __call__(self, items: list[dict]) -> PairBatch:
        """Stack and pad; pictures stay bytes where their last step can be done on the device."""
        batch = self.batch_type(
            image_ids=torch.tensor([item["image_id"] for item in items]),
            pixel_values=_stacked(items, "pixel_values"),
            vision_hidden_states=_stacked(items, "vision_hidden_states"),
            scene_states=_stacked(items, "scene_states"),
            image_teacher=_stacked(items, "image_teacher"),
            text_teacher=_stacked(items, "text_teacher"),
            dense_text_embeds=_stacked(items, "dense_text_embeds"),
            **self._texts(items),
        )
        if "image" in items[0]:
            images, prepare = [item["image"] for item in items], self.processor.image_processor
            if self.pixel_scale is None:
                batch.pixel_values = prepare(images, return_tensors="pt")["pixel_values"]
            else:
                batch.pixel_values, batch.pixel_scale = _bytes_of(prepare, images), self.pixel_scale
        if "scene_label" in items[0]:
            batch.scene_labels = torch.tensor([item["scene_label"] for item in items])
        if "dense_input_ids" in items[0]:
            dense = pad_ids(self.processor.tokenizer, [item["dense_input_ids"] for item in items])
            batch.dense_input_ids, batch.dense_attention_mask = dense["input_ids"], dense["attention_mask"]
        return batch

    def _texts(self, items: list[dict]) -> dict[str, torch.Tensor]:
        if "input_ids" in items[0]:
            return pad_ids(self.processor.tokenizer, [item["input_ids"] for item in items])
        return pad_states([item["text_hidden_states"] for item in items])


def _moved(tensor: torch.Tensor, device: torch.device | str, non_blocking: bool) -> torch.Tensor:
    return tensor.to(device, non_blocking=non_blocking or tensor.is_pinned())


def _stacked(items: list[dict], name: str) -> torch.Tensor | None:
    return torch.stack([item[name] for item in items]).float() if name in items[0] else None


__all__ = ["HostBatch", "PairBatch", "PairCollator", "PixelScale"]
