"""Processor of PIR: nothing of its own, but a name, so that a model finds its processor by the usual rule."""

from .processing_dual_encoder import DualEncoderProcessor


class PIRProcessor(DualEncoderProcessor):
    """Pictures and captions for [`PIRModel`]; see [`DualEncoderProcessor`]."""


__all__ = ["PIRProcessor"]
