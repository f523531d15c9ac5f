"""Towers are backbones of transformers: build, load completely, copy, run, and freeze unused weights."""

import inspect
import os
from contextlib import contextmanager

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding, SiglipTextConfig, SiglipTextModel

from ..configuration.configuration_dual_encoder import refuse_kernels

ENCODER_ALONE = ("t5", "mt5", "umt5", "t5gemma")
TOWERS = ("vision_model", "text_model", "instruction_model")  # as the dual encoders call them
UNREAD = ("logit_scale", "logit_bias", "temperature")  # weights of dual encoders that no embedding depends on


def run_vision_tower(tower: nn.Module, pixel_values: torch.Tensor, **kwargs):
    """Run a vision backbone on (B, 3, H, W), at any size; arguments that are None are not passed on."""
    if "interpolate_pos_encoding" in inspect.signature(tower.forward).parameters:
        kwargs["interpolate_pos_encoding"] = True
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    return tower(pixel_values.to(tower.dtype), **kwargs)


def run_text_tower(
    tower: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None = None,
    **kwargs,
):
    """Run a text backbone on (T, L) with the padding moved to the right.

    Tokenizers of language models pad on the left. A tower that counts positions from the first column would then give a
    caption other positions in a batch than alone.

    Returns:
        The tower's output, whose tokens have the padding on the right, and its last hidden state (T, L, C) in the
        order given.
    """
    mask = attention_mask.bool().long()
    # Column of each token when the padding is on the right: real tokens in order, then the rest in order.
    column = torch.where(
        mask.bool(), mask.cumsum(1) - 1, mask.sum(1, keepdim=True) + (1 - mask).cumsum(1) - 1
    )  # (T, L)
    if token_type_ids is not None:
        kwargs["token_type_ids"] = torch.zeros_like(token_type_ids).scatter(1, column, token_type_ids)
    output = tower(
        input_ids=torch.zeros_like(input_ids).scatter(1, column, input_ids),
        attention_mask=torch.zeros_like(attention_mask).scatter(1, column, attention_mask),
        **kwargs,
    )
    hidden = output.last_hidden_state
    return output, hidden.gather(1, column[..., None].expand(-1, -1, hidden.shape[-1]))


def as_tokens(hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states (B, N, C) as they are; feature maps (B, C, H, W) as tokens, row by row."""
    return hidden.flatten(2).transpose(1, 2) if hidden.dim() == 4 else hidden


def image_tokens(tower: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Run a vision backbone: (B, 3, H, W) -> (B, N, C)."""
    return as_tokens(run_vision_tower(tower, pixel_values).last_hidden_state)


def hold_batch_norm(model: nn.Module):
    """Put every BatchNorm in eval mode, so that it uses and keeps the statistics that it was loaded with."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def build_tower(config) -> nn.Module:
    """Build an untrained tower; parts that `last_hidden_state` does not need are left out, or else frozen."""
    try:
        tower = _from_config(config)
    except ValueError as error:
        if "attention" not in str(error):
            raise
        # The attention implementation was asked of the whole model; a convolutional tower has none.
        tower = _from_config(config, attn_implementation="eager")
    freeze_unused(tower)
    return tower


def _from_config(config, **kwargs) -> nn.Module:
    AutoModel.register(SiglipTextConfig, SiglipTextModel, exist_ok=True)  # as in load_tower
    auto = _auto_class(config)
    try:
        return auto.from_config(config, add_pooling_layer=False, trust_remote_code=False, **kwargs)
    except TypeError:  # ResNet, ConvNeXt, DINOv2, CLIP: their constructors do not know the argument
        return auto.from_config(config, trust_remote_code=False, **kwargs)


def _auto_class(config):
    """`AutoModel`; for T5 and similar models, the class that loads the encoder alone."""
    return AutoModelForTextEncoding if config.model_type in ENCODER_ALONE else AutoModel


def freeze_unused(tower: nn.Module):
    """Freeze the weights that `last_hidden_state` does not need: a parameter without gradient is an error in DDP."""
    for name, parameter in tower.named_parameters():
        if _is_unused(name, tower.config.model_type):
            parameter.requires_grad_(False)


@contextmanager
def load_errors(source: str | os.PathLike):
    """Turn the errors of loading a missing or damaged model into one that names the model and the remedy.

    Raises:
        ValueError, OSError: a file, a folder that does not exist, or a model that is incomplete.
    """
    source = str(source)
    if os.path.isfile(source):
        raise ValueError(f"{source} is a file: name the folder of a model, or a Hub id")
    if source.startswith(("/", ".", "~")) and not os.path.isdir(source):
        raise FileNotFoundError(f"{source}: no such folder")
    try:
        yield
    except Exception as error:
        if type(error).__name__ == "SafetensorError":
            raise ValueError(f"{source}: its weights are damaged ({error}); copy or download them again") from None
        if type(error).__name__ == "UnpicklingError":  # torch's text advises to open it unsafely
            raise ValueError(
                f"{source}: its pickled weights hold more than tensors, and nothing of them was run: take a repository "
                "with model.safetensors"
            ) from None
        if "trust_remote_code" in str(error):
            raise ValueError(
                f"{source} needs code of its own, and none is run that nobody asked for: name a model of vsehub or of "
                "transformers; or read its code and give --trust_remote_code with --revision COMMIT"
            ) from None
        if not isinstance(error, (OSError, ValueError)):
            raise
        said = " ".join(str(error).split())
        if "config.json" in said and os.path.isdir(source) and not os.path.isfile(os.path.join(source, "config.json")):
            if os.path.isfile(os.path.join(source, "adapter_config.json")):
                raise ValueError(
                    f"{source} is an adapter of another model: merge them and save the whole, "
                    f'PeftModel.from_pretrained(AutoModel.from_pretrained(BASE), "{source}").merge_and_unload()'
                ) from None
            said = "there is no config.json"
        elif "`model_type`" in said and os.path.isfile(os.path.join(source, "visual", "model.onnx")):
            raise ValueError(
                f"{source} holds ONNX graphs for other programs: name the folder of the model that was exported"
            ) from None
        elif "`model_type`" in said and os.path.isdir(source):
            raise ValueError(
                f"{source}: its config.json names no model_type, so it is no model of vsehub, transformers or "
                "sentence-transformers"
            ) from None
        elif source in said:
            raise
        if os.path.isdir(source):
            raise ValueError(f"{source} is not a complete model ({said}); copy or download it again") from None
        raise OSError(f"{source}: no such folder, and it could not be loaded from the Hub ({said})") from None


def load_complete(model_class, source: str | os.PathLike, **loading) -> nn.Module:
    """Load a model, every weight of it that an embedding depends on. Call it within `load_errors`.

    Args:
        model_class: of transformers or vsehub, with `from_pretrained`.
        source: folder or Hub id.
        **loading: of `from_pretrained`. `trust_remote_code` is False unless given.

    Raises:
        ValueError: the checkpoint lacks weights, or has them in another shape; transformers would draw new ones.
    """
    loading = {"trust_remote_code": False} | loading  # without it, transformers asks on stdin
    loading |= {"output_loading_info": True, "ignore_mismatched_sizes": True}  # errors below, with one line
    model, info = model_class.from_pretrained(source, **loading)
    towers = {name: part.config.model_type for name, part in model.named_children() if name in TOWERS}
    freezes = hasattr(model, "freeze_for_good")  # ours; CLIP itself reads the pooling of its towers
    computed = {name for name, buffer in model.named_buffers() if not buffer.is_floating_point()}  # position_ids

    def is_read(key: str) -> bool:
        tower, _, rest = key.partition(".")
        unused = freezes and tower in towers and _is_unused(rest, towers[tower])
        return not (unused or key in UNREAD or key in computed)

    refuse_lost(info, is_read, str(source), f"a {type(model).__name__}", "take a checkpoint of the whole model")
    return model


def refuse_lost(info: dict, is_read, source: str, what: str, remedy: str):
    """Refuse weights that were drawn at random because the checkpoint does not have them.

    Args:
        info: of `from_pretrained(output_loading_info=True)`.
        is_read: function of a weight's name: whether an embedding depends on it.
        source: of the checkpoint.
        what: kind of model.
        remedy: what to do.

    Raises:
        ValueError: there are such weights; the first is named.
    """
    shapes = {str(key): sizes for key, *sizes in info["mismatched_keys"] if is_read(str(key))}
    if shapes:
        name = min(shapes)
        found, wanted = (tuple(size) for size in shapes[name])
        raise ValueError(
            f"{source}: {len(shapes)} weights do not have the shape that config.json says (first: {name} is {found} in "
            f"the checkpoint and {wanted} in {what}): {remedy}"
        )
    lost = sorted(str(key) for key in info["missing_keys"] if is_read(str(key)))
    if lost:
        raise ValueError(
            f"{source}: {len(lost)} weights of {what} are not in the checkpoint (first: {lost[0]}), and random ones "
            f"would find nothing: {remedy}"
        )


def load_tower(source: str, part: str) -> nn.Module:
    """Load a pretrained tower in float32; of a two-tower checkpoint such as CLIP, its `part`.

    Raises:
        ValueError: the checkpoint lacks weights that the architecture has, or its file is damaged.
    """
    AutoModel.register(SiglipTextConfig, SiglipTextModel, exist_ok=True)  # AutoModel knows SigLIP only whole
    with load_errors(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        refuse_kernels(config.to_dict() | {"attn_implementation": config._attn_implementation})
        config = getattr(config, part, config)
        kwargs = {"config": config, "output_loading_info": True, "ignore_mismatched_sizes": True}
        kwargs |= {"dtype": torch.float32, "trust_remote_code": False}
        try:
            tower, info = _auto_class(config).from_pretrained(source, add_pooling_layer=False, **kwargs)
        except TypeError:  # as in _from_config
            tower, info = _auto_class(config).from_pretrained(source, **kwargs)
    remedy = "it may come from another transformers version; load and save it once with that one"
    what = f"this {config.model_type} tower"
    refuse_lost(info, lambda key: not _is_unused(key, config.model_type), str(source), what, remedy)
    return tower


def copy_tower(source: nn.Module, target: nn.Module, name: str):
    """Copy every weight that `target` has.

    Args:
        source: a loaded tower.
        target: the same architecture, perhaps without its own pooling.
        name: of the source, for the error.

    Raises:
        ValueError: `source` lacks a weight of `target`, or has one that `target` has no place for.
    """
    report = target.load_state_dict(source.state_dict(), strict=False)
    left = [key for key in report.unexpected_keys if not _is_unused(key, source.config.model_type)]
    if report.missing_keys or left:
        raise ValueError(f"{name}: the towers do not fit; missing {report.missing_keys}, left over {left}")


def _is_unused(key: str, model_type: str) -> bool:
    """Whether `last_hidden_state` does not depend on a weight: the tower's own pooling, or a mask token."""
    own = {"clip_vision_model": "post_layernorm.", "convnext": "layernorm.", "convnextv2": "layernorm."}
    key = key.removeprefix("vision_model.").removeprefix("text_model.")
    pooling = key.startswith(("pooler.", "head.", own.get(model_type, "pooler."))) or ".pooler." in key
    return pooling or key.endswith("mask_token")


__all__ = [
    "as_tokens",
    "build_tower",
    "copy_tower",
    "freeze_unused",
    "hold_batch_norm",
    "image_tokens",
    "load_complete",
    "load_errors",
    "load_tower",
    "refuse_lost",
    "run_text_tower",
    "run_vision_tower",
]
