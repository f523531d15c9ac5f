"""Embed an evaluation split, each image once, and rank it. The work is shared among processes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch.nn import functional as F
from tqdm.auto import tqdm

from ..data.rows import row_image
from ..processing.batching import batches_of, by_length, decoding_threads, run_batches, tokenize
from ..processing.encoders import Encoder
from .protocols import protocol_outcomes
from .ranking import folded_metrics
from .scene_metrics import scene_precision


class Embeds(NamedTuple):
    """The embeddings of an evaluation split, float32.

    Args:
        image_embeds: unit vectors (N, D).
        text_embeds: unit vectors (T, D) of all captions.
        text_to_image: the row of the image of each caption (T,).
    """

    image_embeds: torch.Tensor
    text_embeds: torch.Tensor
    text_to_image: torch.Tensor


class RowInputs:
    """The pictures and captions of prepared rows as inputs of a model; captions are cut where the processor cuts them.

    Training has another implementation, which reads the cached outputs of a frozen tower (`CachedRowInputs`).

    Args:
        processor: image processor and tokenizer; its `model_max_length` is the number of tokens that are read.
        rows: prepared rows (`prepare_rows`).
    """

    def __init__(self, processor, rows):
        self.processor, self.rows = processor, rows
        self.captions = [text for captions in rows["captions"] for text in captions]
        self.owners = torch.tensor([row for row, captions in enumerate(rows["captions"]) for _ in captions])

    def images(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Model inputs of the pictures of these rows."""
        return self.processor.image_processor([row_image(self.rows[index]) for index in indices], return_tensors="pt")

    def texts(self, indices: Sequence[int]) -> dict[str, torch.Tensor]:
        """Model inputs of these captions, numbered over all rows."""
        return tokenize(self.processor.tokenizer, [self.captions[index] for index in indices])


class EncoderRows(RowInputs):
    """`RowInputs` that an encoder prepares.

    Args:
        encoder: of the rows; its `text_limit` is the number of tokens that are read.
        rows: prepared rows.
    """

    def __init__(self, encoder: Encoder, rows):
        super().__init__(encoder.processor, rows)
        self.encoder = encoder

    def images(self, indices: Sequence[int]) -> dict[str, Any]:
        """Model inputs of the pictures of these rows."""
        return self.encoder.image_inputs([row_image(self.rows[index]) for index in indices])

    def texts(self, indices: Sequence[int]) -> dict[str, Any]:
        """Model inputs of these captions, numbered over all rows."""
        return self.encoder.text_inputs([self.captions[index] for index in indices])


def embed_rows(model, inputs: RowInputs, accelerator: Accelerator, batch_size: int = 64) -> Embeds:
    """Embed the images and all captions of prepared rows.

    Args:
        model: the wrapped or bare model, or an encoder; it is put in eval mode.
        inputs: of the rows.
        accelerator: gives this process its share and gathers the results of all.
        batch_size: images, or texts, at a time.

    Returns:
        Embeddings on the CPU, equal on every process.
    """
    model.eval()
    captions = inputs.captions
    # each distinct caption once: vectors from batches of other widths differ in the last bits and would not tie
    first = {text: index for index, text in reversed(list(enumerate(captions)))}
    order = by_length(captions, first.values())
    rows = list(range(len(inputs.rows)))
    image_embeds = embed_items(
        model, accelerator, rows, inputs.images, batch_size, "image_embeds", workers=decoding_threads()
    )
    text_embeds = embed_items(model, accelerator, order, inputs.texts, batch_size, "text_embeds")
    return Embeds(image_embeds, text_embeds[[first[text] for text in captions]], inputs.owners)


def embed_items(
    model,
    accelerator: Accelerator,
    order: Sequence[int],
    prepare: Callable[[Sequence[int]], dict[str, Any]],
    batch_size: int,
    field: str,
    workers: int = 0,
) -> torch.Tensor:
    """Embed the items of `order`, every n-th batch on this process; row i of the result (float32, CPU) is item i.

    Args:
        model: in eval mode.
        accelerator: gives this process its share and gathers the results of all.
        order: numbers of the items, from 0.
        prepare: numbers to inputs of the model.
        batch_size: items at a time.
        field: `image_embeds` or `text_embeds`.
        workers: threads that prepare the next batches, as in `run_batches`.
    """
    rank, world, device = accelerator.process_index, accelerator.num_processes, accelerator.device
    mine = batches_of(order, batch_size)[rank::world]
    parts = run_batches(mine, prepare, lambda inputs: getattr(model(**inputs), field).float(), device, workers)
    title = f"embedding {field.split('_')[0]}s"
    embeds = None
    for batch, part in tqdm(parts, total=len(mine), desc=title, disable=rank > 0, leave=False):
        if embeds is None:
            embeds = torch.zeros(1 + max(order), part.shape[1], device=device)
        embeds[torch.tensor(batch, device=device)] = part
    if world > 1:
        width = accelerator.gather(torch.tensor([0 if embeds is None else embeds.shape[1]], device=device))
        if embeds is None:  # fewer batches than processes
            embeds = torch.zeros(1 + max(order), int(width.max()), device=device)
        embeds = accelerator.reduce(embeds, reduction="sum")  # every row was filled by exactly one process
    return F.normalize(embeds, dim=-1).cpu()


def labels_of(rows) -> list | None:
    """A scene class per image, where every image has one."""
    return list(rows["label"]) if "label" in rows.column_names and all(rows["label"]) else None


def further_metrics(image_embeds, text_embeds, text_to_image, folds: int = 0, labels=None) -> dict[str, float]:
    """Metrics that are in no protocol: means over folds, and scene precision both ways.

    Args:
        image_embeds, text_embeds, text_to_image: as `embed_rows` gives them.
        folds: recalls over so many consecutive folds (keys `FOLDS_fold_...`); 0 for none.
        labels: a class per image (keys `scene_..._precision@k`, ties always in expectation), or None.
    """
    metrics = {}
    if folds:
        folded = folded_metrics(image_embeds, text_embeds, text_to_image, folds)
        metrics |= {f"{folds}_fold_{key}": value for key, value in folded.items()}
    if labels is not None:
        of_texts, ks = [labels[row] for row in text_to_image], [k for k in (1, 5, 10) if k <= len(labels)]
        ways = {
            "text_to_image": (text_embeds, image_embeds, of_texts, labels),
            "image_to_text": (image_embeds, text_embeds, labels, of_texts),
        }
        for way, inputs in ways.items():
            metrics |= {f"scene_{way}_{key}": value for key, value in scene_precision(*inputs, ks=ks).items()}
    return metrics


def row_metrics(rows, embeds: Embeds, folds: int = 0) -> dict[str, float]:
    """Recalls of prepared rows and their embeddings, and all further metrics that the data allow."""
    texts = [text for captions in rows["captions"] for text in captions]
    outcomes = protocol_outcomes("recall", *embeds, texts=texts)
    return outcomes.metrics() | further_metrics(*embeds, folds=folds, labels=labels_of(rows))
