"""Models below a subfolder and adapters: the documented way, in a process of its own, where vsehub is not imported."""

import subprocess
import sys

import pytest
import torch

from vsehub.training.lora import lora_config

SUBFOLDER = """
import sys
from pathlib import Path
from transformers import AutoModel
assert "vsehub" not in sys.modules
folder = Path(sys.argv[1])
model = AutoModel.from_pretrained(str(folder / "small"), trust_remote_code=True)
print(type(model).__name__)
"""
ADAPTER = """
import sys
from pathlib import Path
from peft import PeftModel
from transformers import AutoModel
folder = Path(sys.argv[1])
base = AutoModel.from_pretrained(str(folder / "small"), trust_remote_code=True)
model = PeftModel.from_pretrained(base, str(folder / "adapter"))
print(type(model.base_model.model).__name__)
assert any("lora" in name for name, _ in model.named_parameters())
"""


@pytest.fixture(scope="module")
def published(tmp_path_factory, make_tiny_model):
    """A repository with a model in a subfolder, and an adapter for it."""
    peft = pytest.importorskip("peft")
    root = tmp_path_factory.mktemp("published")
    torch.manual_seed(0)
    model = make_tiny_model()
    model.save_pretrained(root / "small")
    peft.get_peft_model(model, lora_config(model, rank=2)).save_pretrained(root / "adapter")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("script", [SUBFOLDER, ADAPTER], ids=["subfolder", "adapter"])
def test_the_documented_way_works_without_vsehub(script, published, tmp_path):
    words = [sys.executable, "-c", script, str(published)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "D2SVSEModel", done.stderr[-2000:]
