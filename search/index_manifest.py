"""What the manifest of an index says: values of the right types, and models in words."""

import math

from .vector_types import TYPES


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
        raise TypeError("cutoff is a dictionary of numbers")
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


def kept_numbers(model: dict) -> str:
    """How many numbers of an embedding the vectors of a model are, in words."""
    return f"the first {model['width']} numbers" if model.get("width") else "all numbers"


def called(model: dict) -> str:
    """The name of a model in errors."""
    revision = f" at {model['revision'][:12]}" if model.get("revision") else ""
    return f"{model['id'] or 'a model in memory'}{revision} (weights {model['digest'][:12]})"


__all__ = ["called", "check_types", "kept_numbers"]
