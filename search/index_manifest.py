"""What the manifest of an index says: values of the right types, and models in words."""

import math

from .vector_types import TYPES

NOTED = ("cutoff", "sources", "kind", "unfinished")


def check_types(manifest: dict):
    """Refuse a manifest with values of wrong types.

    Raises:
        TypeError, KeyError, ValueError: which the store turns into one line.
    """
    model, cutoff, sources = manifest["model"], manifest["cutoff"], manifest["sources"]
    if model is not None:
        texts = isinstance(model, dict) and isinstance(model["id"], str) and isinstance(model["digest"], str)
        if not texts or not isinstance(model.get("revision"), (str, type(None))):
            raise TypeError("the model has an id, a revision and a digest, all of them texts")
        width = model.get("width")
        if isinstance(width, bool) or not (width is None or (isinstance(width, int) and width > 0)):
            raise TypeError("the width of the model's vectors is a whole number")
    if manifest.get("vectors", "float32") not in TYPES:
        raise ValueError(f"its vectors are stored as {manifest['vectors']!r}")
    if not isinstance(manifest["kind"], str) or isinstance(manifest["rows"], bool):
        raise TypeError("kind is a text and rows a number")
    if cutoff is not None and not (isinstance(cutoff, dict) and isinstance(cutoff.get("text", 0.0), (int, float))):
        raise TypeError('cutoff is a dictionary of numbers, such as {"text": 0.3}')
    if cutoff and not math.isfinite(cutoff.get("text", 0.0)):
        raise ValueError("the cut-off is not finite")
    settings = isinstance(sources, dict) and all(
        isinstance(source, dict)
        and isinstance(source.get("data"), str)
        and isinstance(source.get("split"), (str, type(None)))
        for source in sources.values()
    )
    if not settings:
        raise TypeError("sources are dictionaries of `data` and `split`, texts")
    for pair in manifest["segments"]:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(name, str) for name in pair):
            raise TypeError("a segment is the names of two files")


def check_noted(facts: dict):
    """Refuse facts with which an index could not be opened again.

    Raises:
        ValueError: another name than those of `NOTED`, or a value of a wrong type.
    """
    unknown = ", ".join(name for name in facts if name not in NOTED)
    if unknown:
        raise ValueError(f"an index notes {', '.join(NOTED)}, and not {unknown}")
    try:
        check_types({"model": None, "cutoff": None, "sources": {}, "kind": "flat", "rows": 0, "segments": [], **facts})
    except TypeError as error:
        raise ValueError(f"the index would not open again: {error}") from None


def kept_numbers(model: dict) -> str:
    """How many numbers of an embedding the vectors of a model are, in words."""
    return f"the first {model['width']} numbers" if model.get("width") else "all numbers"


def called(model: dict) -> str:
    """The name of a model in errors."""
    revision = f" at {model['revision'][:12]}" if model.get("revision") else ""
    return f"{model['id'] or 'a model in memory'}{revision} (weights {model['digest'][:12]})"


__all__ = ["NOTED", "called", "check_noted", "check_types", "kept_numbers"]
