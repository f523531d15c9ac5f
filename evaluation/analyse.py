"""What embedding spaces are like: how many directions they use, how they lie, and what of a caption they keep."""

import torch
from accelerate import Accelerator
from transformers.utils import logging

from ..data.arguments import DataArguments
from ..data.rows import prepare_rows
from ..files.short_names import names_of
from ..modeling.towers import load_errors
from ..processing.encoders import Encoder, truncated
from ..processing.load_encoder import load_encoder
from .breakdown import content_words, recall_by, word_count
from .embed import Embeds, EncoderRows, embed_rows
from .geometry import (
    alignment,
    directions_for,
    effective_rank,
    modality_gap,
    separability,
    singular_values,
    uniformity,
    variance_shares,
)
from .ranking import image_text_metrics, image_text_outcomes, recall_at_k, retrieval_ranks

KS = (1, 5, 10)
logger = logging.get_logger(__name__)


def analysis(
    sources: list[str],
    data: DataArguments,
    split: str,
    need_dense: bool = False,
    widths: tuple[int, ...] = (),
    batch_size: int = 64,
    loading: dict[str, dict] | None = None,
) -> dict[str, dict]:
    """Embed a split with each of several models and describe the embeddings.

    Args:
        sources: folders or Hub ids of image-text models, see `processing.load_encoder`.
        data: source and columns.
        split: which split.
        need_dense: whether every row must have a dense text (`data.dense_text` says where); if not, a column
            `dense_text` is used where all rows have one.
        widths: also the recall of the first so many numbers of each embedding; default those that a model was
            trained for.
        batch_size: images, or texts, at a time.
        loading: for each source, arguments of the loading.

    Returns:
        For each model, by `names_of`, what `describe` returns.

    Raises:
        ValueError: a test split, no image-text model, fewer than two images, a width that a model does not have.
    """
    if split.startswith("test"):
        raise ValueError(
            f"--split {split}: what an analysis shows changes the next model, so it reads no test split; name a "
            "validation split (`vsehub evaluate` measures a model once on the test split)"
        )
    sources = list(dict.fromkeys(sources))
    for source in sources:  # check the models before the data are read
        with load_errors(source):
            pass
    accelerator = Accelerator()
    rows = prepare_rows(data, split, "runs/analyse", need_dense=need_dense, limit=data.max_eval_images)
    if len(rows) < 2:
        raise ValueError(f"{data.data} [{split}]: one image has no geometry; take at least two")
    captions = [text for texts in rows["captions"] for text in texts]
    dense_texts = _dense_texts(rows)
    results = {}
    for name, source in zip(names_of(sources), sources):
        with load_errors(source):
            encoder = load_encoder(source, **(loading or {}).get(source, {})).to(accelerator.device)
        embeds = _embedded(encoder, rows, accelerator, batch_size)
        dense = encoder.encode_text(dense_texts, batch_size) if dense_texts else None
        for width in widths:
            if width < embeds[0].shape[1]:
                encoder.warn_of_width(width)
        results[name] = describe(embeds, captions, dense, widths or encoder.nested_widths)
        del encoder
    return results


def _dense_texts(rows) -> list[str]:
    """The dense text of each image; none where one lacks it."""
    texts = list(rows["dense_text"]) if "dense_text" in rows.column_names else []
    missing = sum(not (isinstance(text, str) and text.strip()) for text in texts)
    if 0 < missing < len(rows):
        logger.warning(
            "%d of %d images have no dense text, so that dense texts are left out: complete the column, or name "
            "others with --dense_text",
            missing,
            len(rows),
        )
    return [] if missing else texts


def _embedded(encoder: Encoder, rows, accelerator: Accelerator, batch_size: int) -> Embeds:
    """The embeddings on the accelerator."""
    inputs = EncoderRows(encoder, rows)
    if accelerator.is_main_process:
        encoder.warn_of_cuts(inputs.captions)
    images, texts, owners = embed_rows(encoder, inputs, accelerator, batch_size)
    return Embeds(images.to(accelerator.device), texts.to(accelerator.device), owners)


def describe(embeds: Embeds, captions: list[str], dense_embeds=None, widths: tuple[int, ...] = ()) -> dict:
    """Describe the embeddings of one model.

    Args:
        embeds: of the images and captions.
        captions: the T texts.
        dense_embeds: of the dense text of each image (N, D), or None.
        widths: of `recall_by_width`.

    Returns:
        `images`, `texts`, `dimension`; `effective_rank`, `directions_90` and `spectrum` (shares of the variance) of
        `image` and `text`; `uniformity` of both; `alignment`, `modality_gap`, `separability`; `rsum`, `recall`;
        `recall_by_words`, `recall_by_content_words`; `dense_recall` and `recall_by_width` where there are any.
    """
    images, texts, owners = embeds
    outcomes = image_text_outcomes(images, texts, owners, KS)
    metrics = outcomes.metrics()
    result = {
        "images": len(images),
        "texts": len(texts),
        "dimension": int(images.shape[1]),
        "image": _one_modality(images),
        "text": _one_modality(texts),
        "alignment": alignment(images, texts, owners),
        "modality_gap": modality_gap(images, texts),
        "separability": separability(images, texts),
        "rsum": metrics["rsum"],
        "recall": {name: value for name, value in metrics.items() if "recall@" in name},
        "recall_by_words": recall_by(outcomes, [word_count(text) for text in captions], KS),
        "recall_by_content_words": recall_by(outcomes, [content_words(text) for text in captions], KS),
    }
    if dense_embeds is not None:
        result["dense_recall"] = dense_recall(texts, dense_embeds.to(texts.device), owners)
    if widths:
        result["recall_by_width"] = recall_by_width(embeds, widths)
    return result


def _one_modality(embeds: torch.Tensor) -> dict:
    values = singular_values(embeds)
    shares = variance_shares(values)
    return {
        "effective_rank": effective_rank(values),
        "directions_90": directions_for(shares, 0.9),
        "uniformity": uniformity(embeds),
        "spectrum": [round(share, 8) for share in shares.tolist()],
    }


def dense_recall(text_embeds, dense_embeds, text_to_image) -> dict[str, float]:
    """How often a short caption retrieves the dense text of its own image among those of all images.

    Args:
        text_embeds: unit vectors of the captions (T, D).
        dense_embeds: unit vectors of the dense text of each image (N, D).
        text_to_image: (T,) row of each caption's image.

    Returns:
        `recall@k` in per cent; equal scores count in expectation.
    """
    ranks = retrieval_ranks(text_embeds, dense_embeds, text_to_image, range(len(dense_embeds)), "text")
    return {f"recall@{k}": recall_at_k(ranks, k) for k in KS}


def recall_by_width(embeds, widths: tuple[int, ...]) -> list[dict[str, float]]:
    """Recalls of the first numbers of each embedding, normalised again, and of the whole embedding.

    Args:
        embeds: image_embeds (N, D), text_embeds (T, D), text_to_image (T,).
        widths: how many numbers; the whole width is added.

    Returns:
        For each width, ascending, `width`, `rsum` and the recalls.

    Raises:
        ValueError: a width above D.
    """
    images, texts, owners = embeds
    rows = []
    for width in sorted({*widths, images.shape[1]}):
        metrics = image_text_metrics(truncated(images, width), truncated(texts, width), owners, KS)
        kept = {name: value for name, value in metrics.items() if name == "rsum" or "recall@" in name}
        rows.append({"width": int(width), **kept})
    return rows


__all__ = ["analysis", "dense_recall", "describe", "recall_by_width"]
