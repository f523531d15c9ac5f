"""A training step's share of one process: named tensors of B pairs, and how items become them."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch

from ..processing.batching import pad_ids, pad_states
from ..processing.processing_dual_encoder import DualEncoderProcessor


@dataclass(eq=False)
class PairBatch:
    """B pairs; row i of every field belongs together. A field that a run does not need is None.

    `to` is what accelerate calls to place a batch on a device, `pin_memory` what the DataLoader calls, and `len`, `in`
    and `[]` are what Trainer asks.

    Args:
        image_ids: (B,) row numbers of the images, the same for captions of one image.
        pixel_values: (B, 3, S, S); or (B, N, C), what enters the first trained block of a vision tower (`VisionTail`).
        vision_hidden_states: (B, N, C) of a cached vision tower, instead of `pixel_values`.
        scene_states: (B, C) of PIR's prior, cached with the vision tower.
        input_ids: (B, L).
        text_hidden_states: (B, L, C) of a cached text tower, instead of `input_ids`.
        attention_mask: (B, L) of the texts.
        scene_labels: (B,) numbers of the scene classes.
        image_teacher, text_teacher: (B, G_I), (B, G_T), features for structure-aware distillation.
        dense_text_embeds: (B, D) of D2S-VSE's dense teacher, made before training.
        dense_input_ids, dense_attention_mask: (B, L') of the dense texts that the dense teacher reads in this step.
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

    def model_inputs(self) -> dict[str, torch.Tensor]:
        """The fields that the model takes."""
        return {name: self[name] for name in MODEL_INPUTS if name in self}

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> "PairBatch":
        """Apply a function to every tensor."""
        return replace(self, **{name: function(tensor) for name, tensor in self._tensors()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PairBatch":
        """Move every tensor to a device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "PairBatch":
        """Copy every tensor to page-locked memory."""
        return self.map(torch.Tensor.pin_memory)

    def rows(self, start: int, stop: int) -> "PairBatch":
        """Some of the pairs."""
        return PairBatch(**{name: tensor[start:stop] for name, tensor in self._tensors()})

    def _tensors(self) -> list[tuple[str, torch.Tensor]]:
        return [(field.name, self[field.name]) for field in fields(self) if field.name in self]

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
        moved = {name: tensor.to(device, non_blocking=non_blocking) for name, tensor in tensors.items()}
        return replace(self, **moved)


class PairCollator:
    """Items of a `PairDataset` to one `PairBatch`; texts are padded to the longest.

    Args:
        processor: of the model.
        batch_type: `HostBatch` for gradient caching.
    """

    def __init__(self, processor: DualEncoderProcessor, batch_type: type[PairBatch] = PairBatch):
        self.processor, self.batch_type = processor, batch_type

    def __call__(self, items: list[dict]) -> PairBatch:
        """Stack, pad and normalise."""
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
            images = [item["image"] for item in items]
            batch.pixel_values = self.processor.image_processor(images, return_tensors="pt")["pixel_values"]
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


def _stacked(items: list[dict], name: str) -> torch.Tensor | None:
    return torch.stack([item[name] for item in items]).float() if name in items[0] else None


__all__ = ["HostBatch", "PairBatch", "PairCollator"]
