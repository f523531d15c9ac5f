"""A batch has named fields, and goes where a dictionary went: to a device, to pinned memory, through Trainer."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from vsehub import D2SVSEProcessor
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training.inputs.batches import MODEL_INPUTS, HostBatch, PairBatch, PairCollator, PixelScale


def batch(**fields):
    return PairBatch(image_ids=torch.tensor([4, 4, 7]), input_ids=torch.ones(3, 5, dtype=torch.long), **fields)


def test_accelerate_moves_every_field_and_keeps_the_class():
    moved = send_to_device(batch(dense_text_embeds=torch.ones(3, 2)), torch.device("meta"), non_blocking=True)
    assert type(moved) is PairBatch
    places = {field.name: getattr(moved, field.name) for field in fields(moved)}
    assert {name: value.device.type for name, value in places.items() if value is not None} == {
        "image_ids": "meta",
        "input_ids": "meta",
        "dense_text_embeds": "meta",
    }


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("batch_type", [PairBatch, HostBatch])
def test_no_copy_from_page_locked_memory_is_waited_for(monkeypatch, pinned, batch_type):
    """accelerate asks for copies that are waited for; a batch that is pinned has no need of it."""
    asked, to = [], torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda tensor: pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda *args, **words: asked.append(words["non_blocking"]) or to(*args))
    moved = send_to_device(batch_type(image_ids=torch.tensor([1, 2]), scene_labels=torch.tensor([0, 1])), "cpu")
    assert asked == [pinned, pinned] and type(moved) is batch_type


def test_the_loader_pins_every_field(monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor + 0)
    whole = batch(scene_labels=torch.tensor([0, 0, 1]))
    copied = pin_memory(whole)
    assert type(copied) is PairBatch and len(pinned) == 3
    assert torch.equal(copied.scene_labels, whole.scene_labels) and copied.scene_labels is not whole.scene_labels


def test_trainer_may_ask_for_fields_as_of_a_dictionary():
    assert len(batch()) == 3
    assert "input_ids" in batch() and "pixel_values" not in batch() and "labels" not in batch()
    assert batch()["input_ids"].numel() == 15


def test_the_model_gets_its_inputs_and_nothing_else():
    whole = batch(attention_mask=torch.ones(3, 5), scene_labels=torch.zeros(3), dense_input_ids=torch.ones(3, 9))
    assert list(whole.model_inputs()) == ["input_ids", "attention_mask"]
    assert set(MODEL_INPUTS) <= {field.name for field in fields(PairBatch)}


@pytest.mark.parametrize("cached", [True, False])
def test_items_become_a_batch_of_what_they_hold(tiny_processor, tiny_pictures, cached):
    items = []
    for row, length in ((0, 2), (0, 3), (2, 1)):
        item = {"image_id": row, "scene_label": row % 2, "image_teacher": torch.ones(4).half()}
        if cached:
            item |= {"vision_hidden_states": torch.ones(6, 8), "text_hidden_states": torch.ones(length, 8).half()}
        else:
            item |= {"image": tiny_pictures[row], "input_ids": [2, *[10] * length, 3]}
        items.append(item)
    made = next(iter(DataLoader(items, batch_size=3, collate_fn=PairCollator(tiny_processor))))
    assert made.image_ids.tolist() == [0, 0, 2] and made.scene_labels.tolist() == [0, 0, 0]
    assert made.image_teacher.dtype == torch.float32 and made.text_teacher is None
    if cached:
        assert made.text_hidden_states.shape == (3, 3, 8) and made.vision_hidden_states.shape == (3, 6, 8)
        assert made.attention_mask.sum(1).tolist() == [2, 3, 1] and made.input_ids is made.pixel_values is None
    else:
        assert made.to("cpu").pixel_values.shape == (3, 3, 32, 32) and made.input_ids.shape == (3, 5)
        assert made.attention_mask.sum(1).tolist() == [4, 5, 3] and made.text_hidden_states is None


def pictures_in(processor, tiny_pictures, batch_type=PairBatch):
    """A batch of three pictures as a process that loads items makes it."""
    items = [{"image_id": row, "image": tiny_pictures[row], "input_ids": [2, 10, 3]} for row in range(3)]
    return PairCollator(processor, batch_type)(items)


@pytest.mark.parametrize("statistics", [(None, None), ([0.5, 0.4, 0.3], [0.2, 0.25, 0.5])])
def test_pictures_are_loaded_as_bytes_and_become_what_the_image_processor_makes(
    tiny_tokenizer, tiny_pictures, statistics
):
    processor = D2SVSEProcessor(square_image_processor(32, *statistics), tiny_tokenizer)
    expected = processor.image_processor(tiny_pictures[:3], return_tensors="pt")["pixel_values"]
    loaded = pictures_in(processor, tiny_pictures)
    assert loaded.pixel_values.dtype == torch.uint8
    assert torch.equal(loaded.model_inputs()["pixel_values"], expected)  # of a batch that nobody moved
    placed = send_to_device(loaded, torch.device("cpu"))
    assert torch.equal(placed.pixel_values, expected)  # to the bit
    assert torch.equal(placed.to("cpu").pixel_values, expected)  # once
    assert torch.equal(placed.rows(1, 3).to("cpu").pixel_values, expected[1:])
    large = pictures_in(processor, tiny_pictures, HostBatch).to("cpu")
    assert large.pixel_values.dtype == torch.uint8  # chunk by chunk
    assert torch.equal(large.rows(1, 3).to("cpu").pixel_values, expected[1:])


def test_every_byte_becomes_what_numpy_makes_of_it():
    scale = PixelScale(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    every = torch.arange(256, dtype=torch.uint8).expand(1, 3, 1, 256)
    rescaled = (every.numpy().astype(np.float64) * scale.factor).astype(np.float32)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (scale.mean, scale.std))
    assert np.array_equal(scale(every).numpy(), (rescaled - mean) / std)


class Inverted(type(square_image_processor(32))):
    """An image processor with a last step of its own."""

    def normalize(self, image, mean, std, **kwargs):
        return -super().normalize(image, mean, std, **kwargs)


def test_an_image_processor_with_another_last_step_does_it_itself(tiny_tokenizer, tiny_pictures):
    settings = square_image_processor(32).to_dict()
    for pictures in (Inverted(**settings), square_image_processor(32)):
        pictures.do_normalize = isinstance(pictures, Inverted)
        processor = D2SVSEProcessor(pictures, tiny_tokenizer)
        expected = pictures(tiny_pictures[:3], return_tensors="pt")["pixel_values"]
        assert torch.equal(pictures_in(processor, tiny_pictures).to("cpu").pixel_values, expected)
