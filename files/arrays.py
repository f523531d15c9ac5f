"""Read `.npy` files that somebody else may have written: numbers only, no more of them than the file holds."""

import math
import os
from pathlib import Path

import numpy as np

LONGEST_HEADER = 10_000  # bytes, as numpy has it, which reads it all before it looks


def read_array(path: str | Path, kind: str | np.dtype, axes: int) -> np.ndarray:
    """Map an array from a file, for reading; a header that declares more than the file holds allocates nothing.

    Args:
        path: of the file.
        kind: type of its numbers, such as `float32`; `integer` for any whole numbers.
        axes: how many.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no array, a pickled one, or one of other numbers or another number of axes.
    """
    try:
        empty = _looked_at(path)
        values = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)  # nothing cannot be mapped
    except FileNotFoundError:
        raise
    except Exception as error:  # numpy's own kinds, and those of Python's parser for the header
        raise ValueError(f"{path}: no array of numbers ({' '.join(str(error).split())})") from None
    fits = values.dtype.kind in "iu" if kind == "integer" else values.dtype == np.dtype(kind)
    if not fits or values.ndim != axes:
        raise ValueError(f"{path}: an array of {values.dtype} with {values.ndim} axes, not of {kind} with {axes}")
    return values


def _looked_at(path) -> bool:
    """Look at the header before numpy reads as much as it promises; whether the array is empty."""
    with open(path, "rb") as file:
        magic = file.read(12).ljust(12, b"\0")
        if magic[:6] != b"\x93NUMPY" or magic[6:8] not in (b"\1\0", b"\2\0"):  # numpy takes others for a zip or pickle
            raise ValueError("it does not begin as an array")
        first = magic[6] == 1
        if int.from_bytes(magic[8 : 10 if first else 12], "little") > LONGEST_HEADER:
            raise ValueError("its header is too long")
        file.seek(8)
        read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError("it holds objects, not numbers" if dtype.hasobject else f"its shape is {shape}")
        size = file.tell() + math.prod(shape) * dtype.itemsize
        if size > os.fstat(file.fileno()).st_size:
            raise ValueError(f"it declares {size:,} bytes and has fewer")
        return 0 in shape


__all__ = ["read_array"]
