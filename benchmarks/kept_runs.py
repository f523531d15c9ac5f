"""What a run of the ledger trained, kept so that a test split can be read later, once, without training anything again.

The towers are frozen and lie elsewhere: only what stands above them is kept, a few megabytes a run.
"""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

MEANS = ("image_embeds_mean", "text_embeds_mean")  # of the configuration: training measures them, too
TOWERS = ("vision_model.", "text_model.", "instruction_model.")


def file_of(out: str, claim: str, arm: str, seed: int) -> Path:
    """Where the weights of a run lie below `--out`."""
    return Path(out) / "kept" / claim / f"{arm.replace(' ', '_')}-{seed}.safetensors"


def keep(model: nn.Module, path: Path, code: str):
    """Save the parameters and buffers outside the towers, and the digest of the code that trained them.

    Raises:
        ValueError: a tower was trained: it would be lost.
    """
    trained = [name for name, value in model.named_parameters() if value.requires_grad and name.startswith(TOWERS)]
    if trained:
        raise ValueError(f"towers were trained ({trained[0]} ...), and only what stands above them is kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"code": code, "means": json.dumps({name: getattr(model.config, name) for name in MEANS})}
    save_file({name: value.contiguous() for name, value in _heads(model).items()}, path, facts)


def restore(model: nn.Module, path: Path):
    """Put kept weights into a model with the same frozen towers.

    Raises:
        ValueError: the file and the model do not have the same names.
    """
    weights, own = load_file(path), _heads(model)
    if weights.keys() != own.keys():
        raise ValueError(f"{path}: not the weights of this model ({sorted(weights.keys() ^ own.keys())[:3]} ...)")
    model.load_state_dict(weights, strict=False)
    for name, mean in json.loads(_facts(path).get("means", "{}")).items():
        setattr(model.config, name, mean)


def code_of_file(path: Path) -> str:
    """The digest of the code that trained the weights."""
    return _facts(path)["code"]


def _facts(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def _heads(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value for name, value in model.state_dict().items() if not name.startswith(TOWERS)}
