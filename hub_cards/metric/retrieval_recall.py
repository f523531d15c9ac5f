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

    def _compute(self, predictions, references, image_embeds=None, ks=(1, 5, 10)):
        if np.ndim(ks) != 1 or not len(ks) or any(k != int(k) or k < 1 for k in ks):
            raise ValueError(f"ks must be whole numbers of at least 1, such as (1, 5, 10), not {ks!r}")
        texts, images = unit_rows("predictions", predictions), unit_rows("image_embeds", image_embeds)
        if texts.shape[1] != images.shape[1]:
            raise ValueError(
                f"captions have {texts.shape[1]} numbers, images {images.shape[1]}: take one model for both"
            )
        return image_text_metrics(images, texts, np.asarray(references), ks)


def unit_rows(name: str, embeddings) -> np.ndarray:
    """Embeddings as float32 rows of length 1; the largest number of a row is made 1 before, so that none overflows.

    Raises:
        ValueError: no matrix of numbers.
    """
    if hasattr(embeddings, "detach"):  # numpy has no bfloat16, and takes nothing with gradients or from a GPU
        embeddings = embeddings.detach().double().cpu()
    try:
        rows = np.asarray(embeddings, np.float64)
    except (ValueError, TypeError):
        raise ValueError(f"{name} must be numbers, as many in each row: one embedding a row") from None
    if rows.ndim != 2 or 0 in rows.shape:
        raise ValueError(f"{name} must be embeddings (rows, dimension), not of shape {rows.shape}")
    with np.errstate(invalid="ignore"):  # infinity becomes NaN, which is refused with its row
        rows = rows / np.abs(rows).max(axis=1, keepdims=True).clip(np.finfo(np.float64).tiny)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)
