"""How an index stores its unit vectors: float32, float16, or int8 with one scale for each vector.

float16 and int8 are decoded block by block: a search never holds all of them as float32. A row of int8 holds the
numbers `rint(127 x / max |x|)` and the factor that makes them a vector of length 1 again. That needs no training, and a
row that is copied into another file keeps its bytes.
"""

import numpy as np

TYPES = ("float32", "float16", "int8")
BLOCK = 1024  # rows decoded at a time: 2 MB of 512 float32 numbers, which stay in a core's cache


class Compact:
    """Unit vectors (R, D) that are stored in fewer bytes; `array[rows]` decodes rows to float32.

    Attributes:
        stored: the array as it lies in the file.
        shape: (R, D).
        length_error: how far from 1 the length of a row may be.
    """

    length_error = 1e-6

    def __init__(self, stored: np.ndarray, dimension: int):
        self.stored, self.shape = stored, (len(stored), dimension)

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows) -> np.ndarray:
        return self.decode(self.stored[rows])

    def since(self, first: int):
        """The rows from `first` on, not yet decoded."""
        return type(self)(self.stored[first:], self.shape[1])

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Rows as float32."""
        raise NotImplementedError

    def products(self, queries: np.ndarray, rows: slice) -> np.ndarray:
        """Inner products of queries (Q, D) with some rows: (Q, R)."""
        return queries @ self[rows].T


class Float16(Compact):
    """Half the bytes; each number is right to 1 in 2,048."""

    length_error = 5e-4

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """See `Compact`."""
        import torch  # six times as fast as numpy; it wants memory that it could write to

        return torch.from_numpy(np.array(stored)).float().numpy()


class Int8(Compact):
    """A quarter of the bytes; each number is right to 1 in 254 of the largest of its row."""

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """See `Compact`."""
        return stored["numbers"].astype(np.float32) * stored["scale"][:, None]

    def products(self, queries: np.ndarray, rows: slice) -> np.ndarray:
        """See `Compact`."""
        stored = self.stored[rows]
        return queries @ stored["numbers"].astype(np.float32).T * stored["scale"]


class UnitRows:
    """The rows of an array (R, D), normalised when they are read, so that no second array is needed.

    Args:
        array: of real numbers.
        what: a row is, for the error.

    Raises:
        ValueError: not a matrix, NaN, infinity or a zero vector; the message names the row.
    """

    def __init__(self, array, what: str = "vector"):
        self.array = np.asarray(array)
        if self.array.ndim != 2:
            raise ValueError(f"{what}: a matrix (rows, dimension) is needed, got shape {self.array.shape}")
        self.shape, self._what = self.array.shape, what
        blocks = [self._lengths(slice(n, n + BLOCK)) for n in range(0, len(self.array), BLOCK)]
        self.lengths = np.concatenate(blocks) if blocks else np.zeros(0)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows) -> np.ndarray:
        block = np.ascontiguousarray(self.array[rows], np.float32)
        return (block / self.lengths[rows][:, None]).astype(np.float32)

    def _lengths(self, rows: slice) -> np.ndarray:
        lengths = np.linalg.norm(np.asarray(self.array[rows], np.float32).astype(np.float64), axis=1)
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(wrong):
            kind = "zero" if lengths[wrong[0]] == 0 else "not finite"
            name = f"{self._what} {rows.start + wrong[0]}"
            raise ValueError(f"{name} is {kind}: it has no cosines; check the model and the input")
        return lengths


Vectors = np.ndarray | Compact  # as a segment holds them


def check_type(name: str):
    """Refuse what no vectors are stored as.

    Raises:
        ValueError: no such type.
    """
    if name not in TYPES:
        raise ValueError(f"vectors cannot be stored as {name!r}; there are {', '.join(TYPES)}")


def stored_dtype(name: str, dimension: int) -> np.dtype:
    """The numpy type of a row's entry in the file: of a number, for int8 of the whole row."""
    if name == "int8":
        return np.dtype([("numbers", "i1", (dimension,)), ("scale", "<f4")])
    return np.dtype("<f2" if name == "float16" else "<f4")


def opened(stored: np.ndarray, name: str, dimension: int) -> Vectors:
    """The vectors of an array as it lies in a file."""
    return stored if name == "float32" else {"float16": Float16, "int8": Int8}[name](stored, dimension)


def encoded(vectors, rows: slice, kept: np.ndarray | None, name: str) -> np.ndarray:
    """Some rows of (unit) vectors as they are stored.

    Args:
        vectors: (R, D), an array, `Compact` or `UnitRows`.
        rows: which.
        kept: boolean (R,), which of all rows are taken; None for all.
        name: of `TYPES`. Rows that are stored so already keep their bytes.
    """
    chosen = rows if kept is None else np.flatnonzero(kept[rows]) + rows.start
    if isinstance(vectors, Compact) and vectors.stored.dtype == stored_dtype(name, vectors.shape[1]):
        return np.ascontiguousarray(vectors.stored[chosen])
    block = vectors[chosen]
    if name != "int8":
        return np.ascontiguousarray(block, stored_dtype(name, 0))
    stored = np.empty(len(block), stored_dtype(name, vectors.shape[1]))
    stored["numbers"] = np.rint(block * (127 / np.abs(block).max(axis=1, keepdims=True)))
    stored["scale"] = 1 / np.linalg.norm(stored["numbers"].astype(np.float32), axis=1)
    return stored


def products(vectors: Vectors, queries: np.ndarray, rows: slice) -> np.ndarray:
    """Inner products of queries (Q, D) with some rows, in float32: (Q, R)."""
    if not isinstance(vectors, Compact):
        return queries @ vectors[rows].T
    start, stop, _ = rows.indices(len(vectors))
    scores = np.empty((len(queries), stop - start), np.float32)
    for first in range(start, stop, BLOCK):
        last = min(first + BLOCK, stop)
        scores[:, first - start : last - start] = vectors.products(queries, slice(first, last))
    return scores


__all__ = ["TYPES", "Compact", "UnitRows", "Vectors", "check_type", "encoded", "opened", "products", "stored_dtype"]
