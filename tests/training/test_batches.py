"""A batch has named fields, and goes where a dictionary went: to a device, to pinned memory, through Trainer."""

from dataclasses import fields

import pytest
import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader
from torch.utils.data._utils.pin_memory import pin_memory

from vsehub.training.batches import MODEL_INPUTS, PairBatch, PairCollator


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
        assert made.pixel_values.shape == (3, 3, 32, 32) and made.input_ids.shape == (3, 5)
        assert made.attention_mask.sum(1).tolist() == [4, 5, 3] and made.text_hidden_states is None
