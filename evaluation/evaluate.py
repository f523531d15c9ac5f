"""Retrieval metrics of a saved model on a split, by named protocols: the only reader of test splits."""

from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from ..data.arguments import DataArguments
from ..data.rows import prepare_rows
from ..files.outputs import output_file
from ..modeling.towers import load_errors
from ..processing.encoders import Encoder, truncated
from ..processing.half_precision import computing_in, resolved_dtype
from ..processing.load_encoder import load_encoder
from .embed import Embeds, EncoderRows, embed_rows, further_metrics, labels_of
from .graded import class_relevance, graded_metrics, rouge_l_relevance
from .ground_truth import read_ground_truth
from .outcomes import Outcomes
from .protocols import PROTOCOLS, captions_that_count, protocol_of, protocols_outcomes
from .ranking import fold_rows
from .record import evaluation_record
from .rouge import load_rapidfuzz
from .saved_embeddings import embedding_facts, read_embeddings, write_embeddings


@dataclass
class EvaluationOptions:
    """How to evaluate; the fields are flags of `vsehub evaluate`."""

    protocols: tuple[str, ...] = ("recall",)
    folds: int = 0  # also the mean over so many consecutive folds
    graded: str | None = None  # `captions` (ROUGE-L) or `classes`: also NDCG within and across modalities
    means: bool = True  # in mixed tasks, subtract the modalities' means that the model's configuration has
    ground_truth: str | None = None  # folder of CxC and ECCV Caption; None is the package eccv_caption
    embeddings: str | None = None  # file to read them from
    save_embeddings: str | None = None  # file to write them to
    width: int | None = None  # keep the first so many numbers of each embedding
    dtype: str = "float32"  # or `bfloat16`, or `auto`
    batch_size: int = 64
    revision: str | None = None  # commit, tag or branch of a Hub id
    trust_remote_code: bool = False  # run the code that the repository brings

    @property
    def loading(self) -> dict:
        """Arguments of every loading call."""
        return {"revision": self.revision, "trust_remote_code": self.trust_remote_code}


def evaluate_model(source: str, data: DataArguments, split: str, folds: int = 0, **options) -> dict[str, float]:
    """The metrics of `evaluation`: those of the first protocol, and the further ones of the options.

    Args:
        source, data, split: as for `evaluation`.
        folds, options: fields of `EvaluationOptions`.
    """
    return evaluation(source, data, split, EvaluationOptions(folds=folds, **options))[0]


def evaluation(source: str, data: DataArguments, split: str, options: EvaluationOptions) -> tuple[dict, dict]:
    """Embed a split, each image once, or read its embeddings, and evaluate it by one or several protocols.

    Args:
        source: folder or Hub id of an image-text model and its processor, see `processing.load_encoder`.
        data: source and columns.
        split: which split.
        options: how.

    Returns:
        Metrics (recalls in per cent, rsum, mean_recall, ...) and the record that `vsehub compare` reads.

    Raises:
        ValueError: no image-text model, data that do not fit the protocol, embeddings of another model or data, or
            `classes` where the data have none.
    """
    _check(options)
    with load_errors(source):  # check the model before the data are read
        pass
    accelerator = Accelerator()
    dtype = resolved_dtype(options.dtype, accelerator.device)
    truths = {name: protocol_of(name).truth for name in options.protocols}
    truths = {name: truth and read_ground_truth(truth, options.ground_truth) for name, truth in truths.items()}
    rows = prepare_rows(data, split, "runs/evaluate", need_dense=False, limit=data.max_eval_images)
    owners = np.repeat(np.arange(len(rows)), [len(captions) for captions in rows["captions"]])
    for name in options.protocols:
        captions_that_count(name, len(rows), owners)  # check before the embedding, which may take hours
    if options.folds:
        fold_rows(owners, len(rows), options.folds)
    _check_labels(rows, data, options)
    with load_errors(source):
        encoder = load_encoder(source, weights=not options.embeddings, **options.loading)
        facts = embedding_facts(source, rows, split, dtype, encoder.text_limit, options.loading)
    embeds = _read_or_embed(encoder, rows, accelerator, dtype, options, facts)
    outcomes = _outcomes(rows, embeds, truths)
    labels = labels_of(rows) if any(PROTOCOLS[name].repeats for name in options.protocols) else None
    metrics = outcomes[options.protocols[0]].metrics()
    metrics |= further_metrics(*embeds, folds=options.folds, labels=labels)
    means = encoder.means if options.graded and options.means and not options.width else None
    metrics |= _graded(rows, embeds, options.graded, means)
    about = {
        **facts,
        **({"width": options.width} if options.width else {}),
        **({"means_subtracted": means is not None} if options.graded else {}),
        "source": data.data,
        "images": len(rows),
        "texts": len(owners),
        "ties": "expected",
    }
    about["data_fingerprint"] = about.pop("data")  # `facts` call it `data`; in a record, `source` names the data
    return metrics, evaluation_record(outcomes, about)


def _check(options: EvaluationOptions):
    """Check the options before the data are read."""
    if options.batch_size < 1 or options.folds < 0:
        raise ValueError(
            f"--batch_size must be at least 1 and --folds at least 0, not {options.batch_size} and {options.folds}"
        )
    if options.embeddings and options.save_embeddings:
        raise ValueError("--embeddings reads what --save_embeddings writes: give one of them")
    if options.save_embeddings:
        output_file(options.save_embeddings)
    if options.graded == "captions":
        load_rapidfuzz()  # if it is missing, that is an error now, not after hours of embedding


def _check_labels(rows, data: DataArguments, options: EvaluationOptions):
    """Check that the scene classes that were asked for are there."""
    if labels_of(rows) is not None:
        return
    if data.label_column != DataArguments.label_column:
        raise ValueError(
            f"{data.data} has no scene class for every image in {data.label_column!r}: name another --label_column, or "
            "leave it out"
        )
    if options.graded == "classes":
        missing = [not label for label in rows["label"]] if "label" in rows.column_names else [True]
        if not all(missing):
            raise ValueError(
                f"{data.data}: {sum(missing)} of {len(missing)} images have no scene class for --graded classes: "
                "complete the column, or name another with --label_column"
            )
        raise ValueError(
            f"{data.data} has no scene classes for --graded classes: name their column with --label_column"
        )


def _embeds(encoder: Encoder, rows, accelerator, dtype: str, batch_size: int) -> Embeds:
    """Embed as a user of the model does; captions are cut where its processor cuts them, and a warning counts them."""
    inputs = EncoderRows(encoder, rows)
    if accelerator.is_main_process:
        encoder.warn_of_cuts(inputs.captions)
    with computing_in(dtype, encoder.model, accelerator.device):
        return embed_rows(encoder, inputs, accelerator, batch_size)


def _read_or_embed(
    encoder: Encoder, rows, accelerator: Accelerator, dtype: str, options: EvaluationOptions, facts: dict
) -> Embeds:
    """The embeddings on the accelerator, of `options.width` numbers; those that are saved are whole."""
    if options.embeddings:
        embeds = read_embeddings(options.embeddings, facts)
        if options.width is not None and options.width < embeds.image_embeds.shape[1]:
            encoder.warn_of_width(options.width)
    else:
        encoder.with_width(options.width)  # refused or warned of before the embedding
        embeds = _embeds(encoder.to(accelerator.device), rows, accelerator, dtype, options.batch_size)
        if options.save_embeddings and accelerator.is_main_process:
            write_embeddings(options.save_embeddings, embeds, facts)
    images, texts, owners = embeds
    images, texts = (truncated(side.to(accelerator.device), options.width) for side in (images, texts))
    return Embeds(images, texts, owners)


def _outcomes(rows, embeds: Embeds, truths: dict) -> dict[str, Outcomes]:
    texts = [text for captions in rows["captions"] for text in captions]
    ids = None
    if "caption_ids" in rows.column_names:
        ids = [int(number) for numbers in rows["caption_ids"] for number in numbers]
    given = {"texts": texts, "image_ids": rows["image_id"], "caption_ids": ids}
    return protocols_outcomes(truths, *embeds, **given)


def _graded(rows, embeds: Embeds, by: str | None, means: dict[str, torch.Tensor] | None) -> dict[str, float]:
    """NDCG within and across modalities, by captions or classes."""
    images, texts, owners = embeds
    if by == "captions":
        return graded_metrics(images, texts, owners, rouge_l_relevance(list(rows["captions"])), means=means)
    if by == "classes":
        return graded_metrics(images, texts, owners, class_relevance(rows["label"], owners), means=means)
    return {}


__all__ = ["EvaluationOptions", "evaluate_model", "evaluation"]
