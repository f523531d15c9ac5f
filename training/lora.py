"""LoRA on both towers of a dual encoder (PEFT): which modules get adapters, and which are trained in full."""

import re
from typing import TYPE_CHECKING

from torch import nn

from ..modeling.modeling_dual_encoder import DualEncoderPreTrainedModel

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

# Names of the linear layers of transformers' backbones from 5.0 to today. The pattern of an adapter contains all of
# them, so that it does not depend on the version that it was made with.
KNOWN = """query key value dense q_proj k_proj v_proj o_proj out_proj qkv proj fc1 fc2 linear1 linear2 up_proj down_proj
gate_proj q_lin k_lin v_lin out_lin lin1 lin2 reduction wi wo Wqkv Wi Wo intermediate output""".split()


def tower_targets(model: DualEncoderPreTrainedModel) -> str:
    """A pattern for `LoraConfig(target_modules=...)`: every linear layer of both towers, whatever its name.

    In a convolutional tower without linear layers, the convolutions get the adapters. A frozen tower gets none:
    adapters would train it after all or, if its states are cached, would never be used.

    Raises:
        ValueError: both towers are frozen.
    """
    towers = {"vision_model": model.vision_model, "text_model": model.text_model}
    towers = {name: tower for name, tower in towers.items() if any(p.requires_grad for p in tower.parameters())}
    if not towers:
        raise ValueError("--lora trains adapters in the towers, and both are frozen: leave it out")
    parts = []
    for tower, backbone in towers.items():
        kinds = _leaves(backbone, nn.Linear) or _leaves(backbone, nn.Conv2d)
        names = sorted(kinds | set(KNOWN) - _leaves(backbone, nn.Module, but=(nn.Linear, nn.Conv2d)))
        parts.append(rf"{tower}\.(.*\.)?({'|'.join(map(re.escape, names))})")
    return "|".join(parts)


def _leaves(backbone: nn.Module, kind: type[nn.Module], but: tuple[type[nn.Module], ...] = ()) -> set[str]:
    """Last parts of the names of the modules of class `kind` and not of `but`; grouped convolutions are left out."""
    names = set()
    for name, module in backbone.named_modules():
        grouped = getattr(module, "groups", 1) != 1  # their adapters would be wasteful
        if name and isinstance(module, kind) and not isinstance(module, but) and not grouped:
            names.add(name.rpartition(".")[2])
    return names


def lora_config(model: DualEncoderPreTrainedModel, rank: int = 16, alpha: int | None = None) -> "LoraConfig":
    """Adapters in both towers; everything outside them (projections, pooling, decoder, ...) is trained in full.

    Args:
        model: `D2SVSEModel` or `PIRModel`.
        rank, alpha: of the adapters; alpha defaults to twice the rank.

    Returns:
        A `LoraConfig` for `peft.get_peft_model`. Its `save_pretrained` writes adapters and heads, not the towers.
    """
    from peft import LoraConfig

    heads = [name for name, part in model.named_children() if part not in model.towers()]
    return LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=tower_targets(model), modules_to_save=heads)


def with_lora(model: DualEncoderPreTrainedModel, rank: int = 16) -> "PeftModel":
    """Add adapters to the towers of a model that are not frozen."""
    from peft import get_peft_model

    return get_peft_model(model, lora_config(model, rank))


__all__ = ["lora_config", "tower_targets", "with_lora"]
