"""The metric as `evaluate` loads it from the folder."""

import evaluate
import numpy as np
import pytest
import torch

from vsehub.evaluation.ranking import image_text_metrics
from vsehub.hub_cards import metric as folder


@pytest.fixture(scope="module")
def metric():
    return evaluate.load(f"{folder.__path__[0]}/retrieval_recall.py")


def test_it_is_the_one_implementation(metric):
    rng = np.random.default_rng(0)
    images, texts, owners = rng.normal(size=(7, 4)), rng.normal(size=(21, 4)), np.repeat(np.arange(7), 3)
    found = metric.compute(predictions=texts.tolist(), references=owners.tolist(), image_embeds=images.tolist())
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)]
    assert found == pytest.approx(image_text_metrics(*unit, owners))


def test_it_adds_batches_up_and_refuses_a_nan(metric):
    metric.add_batch(predictions=[[1.0, 0.0]], references=[0])
    metric.add_batch(predictions=[[0.0, 1.0]], references=[1])
    assert metric.compute(image_embeds=[[2.0, 0.0], [0.0, 3.0]], ks=(1,))["rsum"] == 200.0
    with pytest.raises(ValueError, match="NaN"):
        metric.compute(predictions=[[float("nan"), 0.0]], references=[0], image_embeds=[[1.0, 0.0]])


IMAGES, TEXTS, OWNERS = (
    np.random.default_rng(1).normal(size=(5, 4)),
    np.random.default_rng(2).normal(size=(10, 4)),
    [0, 1, 2, 3, 4] * 2,
)


@pytest.mark.parametrize(
    "images",
    [
        1e30 * IMAGES,
        1e-60 * IMAGES,
        torch.tensor(IMAGES, requires_grad=True),
        torch.tensor(IMAGES).T.contiguous().T,
    ],
)
def test_only_directions_count(metric, images):
    expected = metric.compute(predictions=TEXTS, references=OWNERS, image_embeds=IMAGES)
    assert metric.compute(predictions=TEXTS, references=OWNERS, image_embeds=images) == pytest.approx(expected)


def test_bfloat16_is_read(metric):
    images = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.bfloat16)
    assert metric.compute(predictions=[[3, 0], [0, 1]], references=[0, 1], image_embeds=images, ks=[1])["rsum"] == 200


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image_embeds": IMAGES[:, :3]}, "captions have 4 numbers, images 3"),
        ({"image_embeds": IMAGES[0]}, r"image_embeds must be embeddings \(rows, dimension\), not of shape \(4,\)"),
        ({"image_embeds": None}, "image_embeds must be"),
        ({"image_embeds": [[1.0, 2.0], [1.0]]}, "as many in each row"),
        ({"image_embeds": np.zeros((0, 4))}, "not of shape"),
        ({"image_embeds": np.full((5, 4), np.inf)}, "NaN or infinity, rows"),
        ({"ks": ()}, "ks must be whole numbers"),
        ({"ks": 5}, "ks must be whole numbers"),
        ({"ks": (0, 1)}, "ks must be whole numbers"),
    ],
)
def test_what_is_no_embedding_or_cut_off_is_one_line(metric, given, said):
    with pytest.raises(ValueError, match=said):
        metric.compute(**{"predictions": TEXTS, "references": OWNERS, "image_embeds": IMAGES} | given)
