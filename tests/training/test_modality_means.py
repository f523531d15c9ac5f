"""The means of the modalities: of training embeddings that a seed chooses, from caches of several views, too."""

import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from small_runs import SMALL
from transformers import AutoModel

from vsehub import D2SVSEProcessor
from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.embed import RowInputs, embed_rows
from vsehub.training import modality_means as means_file
from vsehub.training import run_d2s
from vsehub.training.modality_means import modality_means


class Numbers:
    """Inputs that are numbers of rows and of captions; row r has one, two or three captions."""

    def __init__(self, rows: int = 30, broken: tuple[int, ...] = ()):
        self.broken = broken
        self.owners = torch.tensor([row for row in range(rows) for _ in range(1 + row % 3)])
        self.captions = [f"{'x' * (row % 7)} {place}" for place, row in enumerate(self.owners.tolist())]

    def readable(self, indices):
        return [index not in self.broken for index in indices]

    def images(self, indices):
        return {"rows": torch.tensor(indices)}

    texts = images


class Table(torch.nn.Module):
    """Embeds row r and caption c as vectors of tables."""

    def __init__(self, inputs: Numbers):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.image, self.text = (torch.randn(len(inputs.owners), 5, generator=generator) for _ in range(2))
        self.read: list[int] = []

    def forward(self, rows):
        self.read += rows.tolist()
        return type("Output", (), {"image_embeds": self.image[rows], "text_embeds": self.text[rows]})


def unit(rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def test_all_images_and_a_caption_of_each_are_read():
    inputs = Numbers()
    table = Table(inputs)
    image, text = modality_means(table, inputs, Accelerator(cpu=True), 4, seed=3)
    rows, captions = sorted(table.read[:30]), table.read[30:]
    assert rows == list(range(30)) and sorted(inputs.owners[captions].tolist()) == rows
    assert torch.allclose(image, unit(table.image[:30]).mean(0), atol=1e-6)
    assert torch.allclose(text, unit(table.text[captions]).mean(0), atol=1e-6)
    again = Table(inputs)
    modality_means(again, inputs, Accelerator(cpu=True), 7, seed=3)
    assert sorted(again.read[30:]) == sorted(captions)  # the seed chooses, not the batches


def test_of_many_rows_some_are_read(monkeypatch):
    monkeypatch.setattr(means_file, "MOST", 8)
    inputs = Numbers()
    table = Table(inputs)
    modality_means(table, inputs, Accelerator(cpu=True), 4)
    assert len(table.read) == 16 and len(set(table.read[:8])) == 8
    assert sorted(inputs.owners[table.read[8:]].tolist()) == sorted(table.read[:8])


@pytest.mark.parametrize("flags", [(), ("--freeze_vision", "True", "--cache_vision", "True", "--cache_views", "2")])
def test_a_stage_keeps_the_means_of_its_training_rows(scenes, tmp_path, flags):
    run_d2s.main([*scenes, *SMALL, "--stages", "baseline", "--output_dir", str(tmp_path), "--max_steps", "2", *flags])
    model, processor = AutoModel.from_pretrained(tmp_path / "hub"), D2SVSEProcessor.from_pretrained(tmp_path / "hub")
    rows = prepare_rows(DataArguments(data=scenes[1]), "train", None, need_dense=False)
    images, texts, owners = embed_rows(model, RowInputs(processor, rows), Accelerator(cpu=True))
    assert np.allclose(model.config.image_embeds_mean, images.mean(0), atol=2e-3 if flags else 1e-5)  # half precision
    kept = torch.tensor(model.config.text_embeds_mean)
    assert (kept - texts.mean(0)).norm() < 0.2 < kept.norm() and kept.norm() <= 1
    config = json.loads((tmp_path / "baseline" / "best" / "config.json").read_text())
    assert len(config["image_embeds_mean"]) == len(config["text_embeds_mean"]) == 16


def test_a_row_whose_picture_cannot_be_read_is_left_out_with_its_caption():
    inputs = Numbers(broken=(4, 7))
    table = Table(inputs)
    modality_means(table, inputs, Accelerator(cpu=True), 4)
    left = sorted(set(range(30)) - {4, 7})
    assert sorted(table.read[:28]) == left == sorted(inputs.owners[table.read[28:]].tolist())
