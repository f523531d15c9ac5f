"""Retrieval with graded relevance: within one modality, and from one into both at once (Yang et al., IEEE TIP 2024).

Relevance is ROUGE-L between a caption and the captions of an image, as TERN defines it, or equality of classes. NDCG
has linear gain and a discount of log2(rank + 1); tied scores share the mean of their gains, which is its expectation.

Worked example: gains 3, 2, 0 in the order 2, 3, 0 give (2 + 3 / log2 3) / (3 + 2 / log2 3) = 0.913.

    >>> round(100 * float(ndcg(np.array([[2.0, 3.0, 1.0]]), np.array([[3.0, 2.0, 0.0]]), 3)[0]), 1)
    100.0
    >>> round(100 * float(ndcg(np.array([[3.0, 2.0, 1.0]]), np.array([[2.0, 3.0, 0.0]]), 3)[0]), 1)
    91.3
"""

import numpy as np

KS = (10, 20, 50)


def ndcg(scores: np.ndarray, relevance: np.ndarray, k: int) -> np.ndarray:
    """NDCG@k of each query, (Q,) in [0, 1]; a query without anything relevant counts 0.

    Args:
        scores, relevance: (Q, G); an item that must not be a hit has the score -inf and no relevance.
        k: how many hits count; all of a smaller gallery.
    """
    k = min(k, scores.shape[1])
    discount = 1 / np.log2(np.arange(k) + 2)
    order = np.argsort(-scores, axis=1, kind="stable")
    sorted_scores = np.take_along_axis(scores, order, 1)
    gains = np.take_along_axis(relevance.astype(np.float64), order, 1)
    gains = np.stack([_shared(row, values) for row, values in zip(sorted_scores, gains)])
    ideal = -np.sort(-relevance.astype(np.float64), axis=1)[:, :k] @ discount
    return np.divide(gains[:, :k] @ discount, ideal, out=np.zeros(len(scores)), where=ideal > 0)


def _shared(scores: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Give tied items the mean of their gains."""
    starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    if len(starts) == len(scores):
        return gains
    counts = np.diff(np.r_[starts, len(scores)])
    return np.repeat(np.add.reduceat(gains, starts) / counts, counts)


def rouge_l_relevance(captions: list[list[str]], beta: float = 1.2) -> np.ndarray:
    """ROUGE-L of every caption against every image's set of captions, (T, N) float32 in [0, 1].

    Lower case, words at spaces. Precision is the best common subsequence over the caption's length, recall the best
    over a reference's length (perhaps another one), F weighs them by beta.

    Raises:
        ImportError: without rapidfuzz.
    """
    try:
        from rapidfuzz.distance import LCSseq
        from rapidfuzz.process import cdist
    except ImportError:
        raise ImportError('ROUGE-L relevance needs rapidfuzz: pip install "vsehub[graded]"') from None
    numbers: dict[str, int] = {}
    letters = [  # a word is a letter, so that the library's fast path for strings applies
        "".join(chr(0x100 + numbers.setdefault(word, len(numbers))) for word in text.lower().split())
        for several in captions
        for text in several
    ]
    lengths = np.array([max(1, len(text)) for text in letters], np.float32)
    common = cdist(letters, letters, scorer=LCSseq.similarity, dtype=np.uint16).astype(np.float32)  # (T, T)
    starts = np.cumsum([0, *(len(several) for several in captions)])[:-1]
    precision = np.maximum.reduceat(common / lengths[:, None], starts, axis=1)
    recall = np.maximum.reduceat(common / lengths[None], starts, axis=1)
    below = recall + beta**2 * precision
    return np.divide((1 + beta**2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)


def class_relevance(labels, text_to_image) -> np.ndarray:
    """1 where a caption's image and an image are of one class, (T, N)."""
    labels = np.unique(np.asarray(labels), return_inverse=True)[1]
    return (labels[np.asarray(text_to_image)][:, None] == labels[None]).astype(np.float32)


def graded_metrics(
    image_embeds, text_embeds, text_to_image, relevance, ks=KS, legacy: bool = False
) -> dict[str, float]:
    """NDCG@k in per cent of four tasks; queries are the images, or each image's first caption.

    `image_to_image`, `text_to_text` (the gallery is every caption), `image_to_mixed` and `text_to_mixed` (images and
    captions ranked together by cosine). A query is never its own hit.

    Args:
        image_embeds: unit vectors (N, D).
        text_embeds: unit vectors (T, D).
        text_to_image: (T,) row of each caption's image; an image's captions follow each other.
        relevance: (T, N) of caption and image.
        legacy: the official evaluation: an image scores 0 with itself instead of being left out, and in the mixed tasks
            a query finds itself.
    """
    images, texts = (np.asarray(x, np.float32) for x in (image_embeds, text_embeds))
    owners = np.asarray(text_to_image)
    first = np.searchsorted(owners, np.arange(len(images)))  # each image's first caption
    among_images = relevance[first]  # (N, N): the query image, by its first caption, and the gallery's images
    to_texts = relevance.T  # (N, T): the query's image and the gallery's captions
    own_image, own_text = np.eye(len(images), dtype=bool), np.zeros((len(images), len(texts)), bool)
    own_text[np.arange(len(images)), first] = True
    nothing = np.zeros_like(own_image)
    tasks = {
        "image_to_image": (images @ images.T, among_images, own_image),
        "text_to_text": (texts[first] @ texts.T, to_texts, own_text),
        "image_to_mixed": (
            images @ np.concatenate([images, texts]).T,
            np.hstack([among_images, to_texts]),
            np.hstack([nothing if legacy else own_image, np.zeros_like(own_text)]),
        ),
        "text_to_mixed": (
            texts[first] @ np.concatenate([texts, images]).T,
            np.hstack([to_texts, among_images.T]),
            np.hstack([np.zeros_like(own_text) if legacy else own_text, nothing]),
        ),
    }
    metrics = {}
    for name, (scores, gains, own) in tasks.items():
        hidden = 0.0 if legacy and name == "image_to_image" else -np.inf
        scores, gains = np.where(own, hidden, scores), np.where(own, 0.0, gains)
        metrics |= {f"{name}_ndcg@{k}": 100 * float(ndcg(scores, gains, k).mean()) for k in ks}
    return metrics


__all__ = ["class_relevance", "graded_metrics", "ndcg", "rouge_l_relevance"]
