"""How a client's look at a model (`client_load.py`) is compared with what the installed classes compute."""

import os

import pytest
import torch

TRUST = {"trust_remote_code": True}
FLOOR = os.environ.get("VSEHUB_FLOOR_VERSION", "5.0.0")  # the oldest transformers that setup.py allows, or another


def check(look, expected, tolerance=1e-6):
    """Compare one look of a client with what the installed classes compute; all three are cosines or unit vectors."""
    for key in ("cosines", "text", "image"):
        torch.testing.assert_close(torch.tensor(look[key]), torch.tensor(expected[key]), atol=tolerance, rtol=0)
    assert look["scores"] == pytest.approx(expected["scores"], abs=tolerance)
    assert look["tokens"] == expected["tokens"]
    assert all(name.startswith("transformers_modules.") for name in look["classes"])
