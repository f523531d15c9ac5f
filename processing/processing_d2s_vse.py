"""Processor of D2S-VSE: nothing of its own, but a name, so that a model finds its processor by the usual rule."""

from .processing_dual_encoder import DualEncoderProcessor


class D2SVSEProcessor(DualEncoderProcessor):
    """Pictures and captions for [`D2SVSEModel`]; see [`DualEncoderProcessor`]."""


__all__ = ["D2SVSEProcessor"]
