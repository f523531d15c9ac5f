"""Embed a stream of pictures; threads decode the next ones while the model runs.

Pillow releases Python's global lock while it decodes and resizes, so threads are enough. A picture that cannot be used
is reported and does not stop the stream.
"""

from itertools import islice

import torch

from ..files.text import is_unicode
from ..processing.batching import ahead, decoding_threads, on_device
from ..processing.encoders import Encoder
from ..processing.pixels import BadImageError, opening, to_rgb
from ..processing.scenes import open_any
from .fast_resize import FastResize

NOT_FINITE = "the model's embedding is not finite"
MOST_HELD = 64_000_000  # bytes of tiles that wait for the model


def embed_stream(
    encoder: Encoder, entries, batch_size: int = 32, workers: int | None = None, fast: bool = False, bands=None
):
    """Embed pictures, batch after batch.

    Args:
        encoder: of the pictures, in eval mode.
        entries: iterable of (item, source): a dictionary with `id`, and a path, bytes, a PIL image, or a
            `BadImageError` where there is none.
        batch_size: pictures at a time.
        workers: decoding threads; default one per core, at most 8.
        fast: scaled decoding, see `fast_resize`; otherwise the pixels are exactly the processor's.
        bands: of multi-band pictures, as in `scenes.open_any`.

    Yields:
        (items, unit vectors (len(items), D) as float32 numpy, problems), in the order of the entries; a problem is a
        dictionary of `id`, `path` and `problem`.

    Raises:
        ValueError: a batch size or a number of workers below 1, or a model that embeds nothing.
    """
    if batch_size < 1 or (workers or 1) < 1:
        raise ValueError(f"batch size and workers must be at least 1, not {batch_size} and {workers}")
    resize = FastResize(encoder.processor) if fast else None
    entries, trusted = iter(entries), False
    batches = iter(lambda: list(islice(entries, batch_size)), [])
    prepared = ahead(
        lambda batch: _prepared(batch, encoder, resize, bands),
        batches,
        workers or decoding_threads(),
        weight=_bytes_held,
        most=MOST_HELD,
    )
    for _, parts in prepared:
        items, vectors, problems = _embedded(encoder, resize, *parts)
        trusted = trusted or len(items) > 0
        if not trusted and any(problem["problem"] == NOT_FINITE for problem in problems):
            raise ValueError(
                f"{encoder.name}: no embedding of the first pictures is finite, so its weights are damaged or too "
                "large for its number format: load the model again, or in float32"
            )
        yield items, vectors, problems


def _bytes_held(batch) -> int:
    """Bytes of the pictures of a batch that are in memory already: tiles of a scene."""
    return sum(3 * source.width * source.height for _, source in batch if hasattr(source, "getbands"))


def _prepared(batch, encoder, resize, bands):
    """Open and prepare a batch: (items, inputs of the model or None, problems)."""
    items, images, problems = [], [], []
    for item, source in batch:
        try:
            images.append(_opened(item, source, resize, bands))
            items.append(item)
        except (BadImageError, OSError) as error:
            problems.append(_problem(item, error))
    if not images:
        return items, None, problems
    try:
        return items, _inputs(images, encoder, resize), problems
    except Exception as error:  # one picture is at fault: prepare each alone to find it
        if len(images) == 1:
            return [], None, [*problems, _problem(items[0], f"cannot be prepared ({type(error).__name__}: {error})")]
        parts = [_prepared([(item, image)], encoder, resize, None) for item, image in zip(items, images)]
        inputs = [part for _, part, _ in parts if part is not None]
        items = [item for good, _, _ in parts for item in good]
        return (
            items,
            _joined(inputs) if inputs else None,
            problems + [problem for *_, several in parts for problem in several],
        )


def _opened(item, source, resize, bands):
    if not is_unicode(str(item["id"])):  # Arrow tables hold UTF-8 only
        raise BadImageError(f"{item['id']!r}: the name is not Unicode; rename the file")
    if hasattr(source, "getbands"):
        with opening(item["id"]):
            source.load()  # Pillow reads the pixels of an opened file only now
            return to_rgb(source)  # the processor does so as well; a second time changes nothing
    if isinstance(source, BadImageError):
        raise source
    if source is None:
        raise BadImageError("there is no picture in this row")
    return open_any(source, name=item["id"], bands=bands, least_side=resize and resize.least_side)


def _inputs(images, encoder, resize) -> dict:
    return encoder.pixel_inputs(resize.prepare(images)) if resize else encoder.image_inputs(images)


def _joined(several: list[dict]) -> dict:
    """The inputs of several pictures as those of one batch; what is no tensor is the same for all."""
    first = several[0]
    return {
        name: torch.cat([inputs[name] for inputs in several]) if torch.is_tensor(value) else value
        for name, value in first.items()
    }


@torch.inference_mode()
def _embedded(encoder, resize, items, inputs, problems):
    if inputs is None:
        return [], torch.empty(0, encoder.dimension, dtype=torch.float32, device="cpu").numpy(), problems
    inputs = on_device(inputs, encoder.device)
    if resize:
        inputs["pixel_values"] = resize.finish(inputs["pixel_values"])
    vectors = encoder(**inputs).image_embeds.cpu()
    good = vectors.isfinite().all(dim=1).tolist()
    problems = problems + [_problem(i, NOT_FINITE) for i, ok in zip(items, good) if not ok]
    return [item for item, ok in zip(items, good) if ok], vectors[good].numpy(), problems


def _problem(item, error) -> dict:
    return {"id": item["id"], "path": item.get("path"), "problem": str(error)}


__all__ = ["embed_stream"]
