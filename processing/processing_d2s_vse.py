"""Processor of D2S-VSE: only a name of its own, by which transformers loads the processor that belongs to the model."""

from .processing_dual_encoder import DualEncoderProcessor


class D2SVSEProcessor(DualEncoderProcessor):
    """Pictures and captions for [`D2SVSEModel`]; see [`DualEncoderProcessor`]."""


__all__ = ["D2SVSEProcessor"]
