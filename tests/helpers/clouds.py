"""Random vectors for the tests of search."""

import numpy as np


def cloud(rows: int, seed: int = 0, dimension: int = 16) -> np.ndarray:
    """Vectors of length 1 in random directions, (rows, dimension), float32."""
    values = np.random.default_rng(seed).standard_normal((rows, dimension)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)
