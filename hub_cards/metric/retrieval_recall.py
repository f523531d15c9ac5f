"""Image-text recall for `evaluate.load`: a thin wrapper around the one implementation, `vsehub.evaluation.ranking`."""

import datasets
import evaluate
import numpy as np

from vsehub.evaluation.ranking import image_text_metrics

DESCRIPTION = """Recall@k of image-text retrieval, both ways, with several captions per image; ties count by their
expectation under random order, so a constant scorer scores chance."""
INPUTS = """
Args:
    predictions: one embedding per caption, (T, D).
    references: for each caption, the number of its image: a row of `image_embeds`.
    image_embeds: one embedding per image, (N, D).
    ks: cut-offs, default (1, 5, 10).
Returns:
    image_to_text_recall@k and text_to_image_recall@k in per cent, rsum (their sum) and mean_recall.
Examples:
    >>> metric = evaluate.load("hub_cards/metric/retrieval_recall.py")
    >>> scores = metric.compute(predictions=[[1.0, 0.0], [0.0, 1.0]], references=[0, 1],
    ...                        image_embeds=[[1.0, 0.0], [0.0, 1.0]], ks=(1,))
    >>> scores["rsum"]
    200.0
"""


class RetrievalRecall(evaluate.Metric):
    """Vectors are compared by cosine."""

    def _info(self):
        features = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references, image_embeds, ks=(1, 5, 10)):
        texts, images = (np.asarray(x, np.float32) for x in (predictions, image_embeds))
        texts, images = (x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (texts, images))
        return image_text_metrics(images, texts, np.asarray(references), ks)
