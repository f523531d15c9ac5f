"""What a run of the ledger trained, kept so that a test split can be read later, once, without training anything again.

Frozen towers lie elsewhere: what stands above them is kept, a few megabytes a run, and what was trained of a tower.
"""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

MEANS = ("image_embeds_mean", "text_embeds_mean")  # of the configuration: training measures them, too
TOWERS = ("vision_model.", "text_model.", "instruction_model.")


def file_of(out: str, claim: str, arm: str, seed: int) -> Path:
    """Where the weights of a run lie below `--out`."""
    return Path(out) / "kept" / claim / f"{arm.replace(' ', '_')}-{seed}.safetensors"


def keep(model: nn.Module, path: Path, code: str):
    """Save all but what is frozen in the towers, and the digest of the code that trained it."""
    trained = {name for name, value in model.named_parameters() if value.requires_grad}
    kept = {name: value for name, value in model.state_dict().items() if name in trained or _is_head(name)}
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"code": code, "means": json.dumps({name: getattr(model.config, name) for name in MEANS})}
    save_file({name: value.contiguous() for name, value in kept.items()}, path, facts)


def restore(model: nn.Module, path: Path):
    """Put kept weights into a model with the same frozen towers.

    Raises:
        ValueError: the file lacks weights of the model's heads, or has others.
    """
    weights, own = load_file(path), model.state_dict().keys()
    wrong = (weights.keys() - own) | ({name for name in own if _is_head(name)} - weights.keys())
    if wrong:
        raise ValueError(f"{path}: not the weights of this model ({sorted(wrong)[:3]} ...)")
    model.load_state_dict(weights, strict=False)
    for name, mean in json.loads(_facts(path).get("means", "{}")).items():
        setattr(model.config, name, mean)


def code_of_file(path: Path) -> str:
    """The digest of the code that trained the weights."""
    return _facts(path)["code"]


def _facts(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


def _is_head(name: str) -> bool:
    return not name.startswith(TOWERS)
