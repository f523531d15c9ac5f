"""Stand-in weights of official files: each follows from its name, so that only inputs and outputs need storing."""

import json
import math
import zlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

TESTS = Path(__file__).resolve().parents[1]
COMMITTED = TESTS / "goldens"
FULL = TESTS.parents[1] / "shared" / "goldens"  # beside the repository: too large for it


def read_golden(name: str, folder: Path = COMMITTED) -> tuple[dict, dict[str, torch.Tensor]]:
    """The facts and the tensors of a golden; the test is skipped if the full ones are asked for and not there."""
    if folder == FULL and not folder.is_dir():
        pytest.skip("the full goldens are not beside the repository")
    return json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")


def window_index(window: int) -> torch.Tensor:
    """Swin's `relative_position_index`, as 4.x stores it."""
    cells = [(row, column) for row in range(window) for column in range(window)]
    side = 2 * window - 1
    return torch.tensor([[(a - c + window - 1) * side + b - d + window - 1 for c, d in cells] for a, b in cells])


def golden_tensor(name: str, shape: list[int], dtype: str, salt: str) -> torch.Tensor:
    """The rule by which every stand-in weight follows from its name."""
    if "int" in dtype:
        return window_index(math.isqrt(shape[0])) if len(shape) == 2 else torch.zeros(shape, dtype=torch.long)
    values = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32((salt + name).encode())))
    if name.endswith("running_var"):
        return values.abs() + 0.5
    if len(shape) < 2:
        return 1 + 0.1 * values if name.endswith("weight") else 0.1 * values
    return values / math.sqrt(math.prod(shape[1:]))
