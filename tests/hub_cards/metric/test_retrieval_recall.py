"""The metric as `evaluate` loads it from the folder."""

import evaluate
import numpy as np
import pytest

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
