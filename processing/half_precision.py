"""Embed in bfloat16: several times as fast on a processor that computes in it, and not quite the same vectors."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

DTYPES = ("auto", "float32", "bfloat16")  # those of `--dtype`


def resolved_dtype(name: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the hardware supports it, else float32.

    Raises:
        ValueError: another name than those of `DTYPES`; it would be taken for float32.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}, not {name!r}")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    known = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # torch 2.13 has no public function for this
    return "bfloat16" if device.type == "cpu" and known is not None and known() else "float32"


@contextmanager
def computing_in(dtype: str, model: nn.Module, device: torch.device | str) -> Iterator[None]:
    """Run a model in `float32`, as it is, or in `bfloat16`, by torch's rules of mixed precision.

    Args:
        dtype: one of both.
        model: in eval mode, not to be trained or saved meanwhile.
        device: where it lies.
    """
    if dtype != "bfloat16":
        yield
        return
    with folded_norms(model), torch.autocast(torch.device(device).type, torch.bfloat16):
        yield


@contextmanager
def folded_norms(model: nn.Module) -> Iterator[None]:
    """Let convolutions do the arithmetic of the batch norms that follow them, as long as the context lasts.

    In eval mode both are linear, so the product of both is one convolution, equal but for rounding. A batch norm in
    bfloat16 is as slow as the convolution. Known are layers that have `convolution` and `normalization`, as those of
    MobileNet, ResNet and RegNet in transformers.
    """
    layers = [layer for layer in model.modules() if _can_be_folded(layer)]
    kept = [(layer, layer.convolution, layer.normalization) for layer in layers]
    try:
        for layer, convolution, norm in kept:
            layer.convolution, layer.normalization = fuse_conv_bn_eval(convolution, norm), nn.Identity()
        yield
    finally:
        for layer, convolution, norm in kept:
            layer.convolution, layer.normalization = convolution, norm


def _can_be_folded(layer: nn.Module) -> bool:
    """Whether a layer is a plain convolution and, directly after it, a batch norm of statistics that are at hand."""
    convolution, norm = getattr(layer, "convolution", None), getattr(layer, "normalization", None)
    if type(convolution) is not nn.Conv2d or type(norm) is not nn.BatchNorm2d:
        return False
    return not norm.training and norm.running_mean is not None and not convolution.weight.is_meta


__all__ = ["DTYPES", "computing_in", "folded_norms", "resolved_dtype"]
