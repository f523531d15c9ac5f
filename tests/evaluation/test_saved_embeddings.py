"""Embeddings come back as they were saved, and are refused for anything else."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.embed import Embeds
from vsehub.evaluation.saved_embeddings import data_fingerprint, model_revision, read_embeddings, write_embeddings

FACTS = {"model": "a", "data": "sha256:1", "split": "test"}


@pytest.fixture
def embeds():
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.randn(count, 4, generator=generator) for count in (3, 5))
    return Embeds(images, texts, torch.tensor([0, 0, 1, 2, 2]))


def test_what_is_read_is_what_was_written(tmp_path, embeds):
    transposed = embeds._replace(text_embeds=torch.randn(4, 5).t())  # not contiguous
    write_embeddings(tmp_path / "deep" / "a.safetensors", transposed, FACTS)
    found = read_embeddings(tmp_path / "deep" / "a.safetensors", FACTS)
    assert all(torch.equal(one, other) for one, other in zip(found, transposed))


@pytest.mark.parametrize(
    ("name", "value"), [("model", "b"), ("data", "sha256:2"), ("split", "val"), ("dtype", "bfloat16")]
)
def test_embeddings_of_something_else_are_refused(tmp_path, embeds, name, value):
    write_embeddings(tmp_path / "a.safetensors", embeds, FACTS)
    with pytest.raises(ValueError, match=f"{name} is {FACTS.get(name)}, not {value}"):
        read_embeddings(tmp_path / "a.safetensors", FACTS | {name: value})


def test_embeddings_of_other_bands_are_refused(tmp_path, embeds):
    path, chosen = tmp_path / "a.safetensors", FACTS | {"bands": "[4, 3, 2]"}
    for written, read in ((FACTS, chosen), (chosen, FACTS), (chosen, FACTS | {"bands": "[3, 2, 1]"})):
        write_embeddings(path, embeds, written)
        assert len(read_embeddings(path, written)) == 3
        with pytest.raises(ValueError, match="bands is"):
            read_embeddings(path, read)


def test_a_file_of_something_else_is_named(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="torn.safetensors: not a file of embeddings"):
        read_embeddings(tmp_path / "torn.safetensors", FACTS)
    with pytest.raises(FileNotFoundError, match="write it with --save_embeddings"):
        read_embeddings(tmp_path / "none.safetensors", FACTS)


def test_the_revision_of_a_folder_follows_its_weights(tmp_path, make_tiny_model):
    for name, seed in (("a", 0), ("same", 0), ("b", 1)):
        make_tiny_model(seed).save_pretrained(tmp_path / name)
    a, same, b = (model_revision(str(tmp_path / name)) for name in ("a", "same", "b"))
    assert a == same != b and a.startswith("sha256:")


def painted(seed):
    """A picture of random blocks."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (32, 32, 3), dtype=np.uint8))


def test_a_copy_of_the_data_elsewhere_is_the_same_data_and_a_changed_picture_is_not(tmp_path):
    for name in ("here", "there", "changed"):
        (tmp_path / name).mkdir()
        for number in range(3):
            painted(number + (name == "changed")).save(tmp_path / name / f"{number}.png")
        os.utime(tmp_path / name / "0.png", (1, len(name)))
    images = [{"split": "test", "filename": f"{n}.png", "sentences": [{"raw": "a dog"}]} for n in range(3)]
    (tmp_path / "karpathy.json").write_text(json.dumps({"images": images}))
    rows = (
        prepare_rows(DataArguments(str(tmp_path / "karpathy.json"), str(tmp_path / name)), "test", None, False)
        for name in ("here", "there", "changed")
    )
    here, there, changed = map(data_fingerprint, rows)
    assert here == there != changed
