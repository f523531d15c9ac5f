"""What a loss of pairs takes: embeddings of one shape, in float32 or better."""

import torch


def checked_pairs(first: torch.Tensor, second: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The embeddings of pairs (N, D), (N, D) in the finer of their types, and at least in float32.

    Half precision has too few digits for sums over a batch. Gradients come back in the type that was given.

    Args:
        first, second: row i of one belongs to row i of the other.
        ids: (N,), such as the image or the class of each pair.

    Raises:
        ValueError: other shapes.
    """
    shapes = [tuple(getattr(given, "shape", [len(given)])) for given in (first, second, ids)]
    if len(shapes[0]) != 2 or shapes[0] != shapes[1] or shapes[2] != shapes[0][:1]:
        said = ", ".join(map(str, shapes))
        raise ValueError(f"a loss of pairs takes shapes (N, D), (N, D), (N,), not {said}: repeat an image per caption")
    if not torch.is_tensor(ids):
        raise TypeError(f"ids must be a tensor (N,), not a {type(ids).__name__}")
    finest = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    return first.to(finest), second.to(finest)


__all__ = ["checked_pairs"]
