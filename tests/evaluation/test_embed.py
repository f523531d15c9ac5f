"""Embedding a split: each image and each caption once, in any batches; and the metrics that follow."""

import threading

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset, Image

from vsehub.evaluation.embed import EncoderRows, RowInputs, embed_rows, further_metrics, labels_of, row_metrics
from vsehub.evaluation.ranking import folded_metrics, image_text_metrics
from vsehub.evaluation.scene_metrics import scene_precision
from vsehub.processing.encoders import Encoder
from vsehub.processing.load_encoder import load_encoder


def undecoded(columns):
    """Rows as `prepare_rows` gives them: pictures are bytes."""
    return Dataset.from_dict(columns).cast_column("image", Image(decode=False))


@pytest.fixture
def rows(tiny_pictures, tiny_captions):
    captions = [tiny_captions[:1], tiny_captions[1:3], tiny_captions[3:4], tiny_captions[4:], ["boat"], ["a dog"]]
    return undecoded({"image": tiny_pictures, "captions": captions, "image_id": list("abcdef")})


def test_row_inputs_are_the_processors(rows, tiny_processor, tiny_pictures):
    inputs = RowInputs(tiny_processor, rows)
    assert inputs.captions == [text for texts in rows["captions"] for text in texts]
    assert inputs.owners.tolist() == [0, 1, 1, 2, 3, 3, 4, 5]
    expected = tiny_processor(images=[tiny_pictures[4], tiny_pictures[1]], return_tensors="pt")["pixel_values"]
    assert torch.equal(inputs.images([4, 1])["pixel_values"], expected)
    expected = tiny_processor(text=[inputs.captions[2], inputs.captions[0]], return_tensors="pt")
    assert torch.equal(inputs.texts([2, 0])["input_ids"], expected["input_ids"])


@pytest.mark.parametrize("size", [1, 4, 64])
def test_rows_keep_their_order_whatever_the_batches(rows, tiny_model, tiny_processor, tiny_pictures, size):
    tiny_model.train()
    images, texts, owners = embed_rows(tiny_model, RowInputs(tiny_processor, rows), Accelerator(), size)
    assert not tiny_model.training and owners.tolist() == [0, 1, 1, 2, 3, 3, 4, 5]
    torch.testing.assert_close(
        images, tiny_model.encode_image(tiny_pictures, processor=tiny_processor), atol=1e-6, rtol=0
    )
    captions = [text for texts in rows["captions"] for text in texts]
    torch.testing.assert_close(texts, tiny_model.encode_text(captions, processor=tiny_processor), atol=1e-6, rtol=0)


def test_rows_of_an_encoder_are_those_of_its_model(rows, tiny_model, tiny_processor):
    encoder = Encoder(tiny_model, tiny_processor)
    theirs = embed_rows(encoder, EncoderRows(encoder, rows), Accelerator(), 3)
    for ours, other in zip(embed_rows(tiny_model, RowInputs(tiny_processor, rows), Accelerator(), 3), theirs):
        torch.testing.assert_close(ours, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["clip", "siglip2", "sentence-transformers"])
def test_rows_of_other_models(family, rows, dual_folder, tiny_pictures):
    encoder = load_encoder(dual_folder(family))
    inputs = EncoderRows(encoder, rows)
    images, texts, _ = embed_rows(encoder, inputs, Accelerator(), 4)
    torch.testing.assert_close(images, encoder.encode_image(tiny_pictures), atol=1e-6, rtol=0)
    torch.testing.assert_close(texts, encoder.encode_text(inputs.captions), atol=1e-6, rtol=0)


def embeddings(images=6, texts=12):
    rng = np.random.default_rng(0)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in rng.normal(size=(2, texts, 4))]
    return (
        unit[0][:images].astype(np.float32),
        unit[1].astype(np.float32),
        np.repeat(np.arange(images), texts // images),
    )


def test_further_metrics_are_folds_and_scene_precision():
    images, texts, owners = embeddings()
    assert further_metrics(images, texts, owners) == {}
    expected = {f"2_fold_{key}": value for key, value in folded_metrics(images, texts, owners, 2).items()}
    assert further_metrics(images, texts, owners, folds=2) == pytest.approx(expected)
    labels = ["a", "b", "a", "b", "c", "c"]
    found = further_metrics(images, texts, owners, labels=labels)
    of_texts = [labels[owner] for owner in owners]
    back = scene_precision(texts, images, of_texts, labels, ks=[1, 5])  # no 10 of 6
    forth = scene_precision(images, texts, labels, of_texts, ks=[1, 5])
    assert found == pytest.approx(
        {f"scene_text_to_image_{key}": value for key, value in back.items()}
        | {f"scene_image_to_text_{key}": value for key, value in forth.items()}
    )


def test_labels_count_only_if_every_image_has_one(rows):
    assert labels_of(rows) is None
    assert labels_of(rows.add_column("label", ["a", "b", "a", "", "b", "b"])) is None
    assert labels_of(rows.add_column("label", list("ababcc"))) == list("ababcc")


def test_row_metrics_are_recalls_and_what_the_data_allow(rows):
    captions = [[f"text {2 * row}", f"text {2 * row + 1}"] for row in range(6)]
    rows = rows.remove_columns("captions").add_column("captions", captions).add_column("label", list("ababcc"))
    embeds = embeddings()
    found = row_metrics(rows, embeds)
    expected = image_text_metrics(*embeds)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert set(found) - set(expected) == set(further_metrics(*embeds, labels=list("ababcc")))


@pytest.mark.parametrize("size", [3, 7, 64])
def test_equal_captions_have_equal_vectors_whatever_their_batch(tiny_model, tiny_processor, tiny_pictures, size):
    texts = [text for i in range(40) for text in ("a red boat", f"zx qv jk{i % 10}")]  # as many letters, more tokens
    rows = undecoded({"image": [tiny_pictures[0]] * 40, "image_id": list(map(str, range(40)))})
    rows = rows.add_column("captions", [texts[i : i + 2] for i in range(0, 80, 2)])
    _, embeds, owners = embed_rows(tiny_model, RowInputs(tiny_processor, rows), Accelerator(), size)
    assert owners.tolist() == [i // 2 for i in range(80)]
    assert len(embeds[::2].unique(dim=0)) == 1 and len(embeds.unique(dim=0)) == 11
    alone = tiny_model.encode_text(texts, processor=tiny_processor)
    torch.testing.assert_close(embeds, alone, atol=1e-6, rtol=0)


def test_pictures_are_opened_in_other_threads_while_the_model_runs(rows, tiny_model, tiny_processor):
    class Inputs(RowInputs):
        opened = set()

        def images(self, indices):
            self.opened.add(threading.current_thread())
            return super().images(indices)

    embed_rows(tiny_model, Inputs(tiny_processor, rows), Accelerator(cpu=True), batch_size=2)
    assert Inputs.opened and threading.main_thread() not in Inputs.opened
