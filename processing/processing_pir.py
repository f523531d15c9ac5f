"""Processor of PIR: only a name of its own, by which transformers loads the processor that belongs to the model."""

from .processing_dual_encoder import DualEncoderProcessor


class PIRProcessor(DualEncoderProcessor):
    """Pictures and captions for [`PIRModel`]; see [`DualEncoderProcessor`]."""


__all__ = ["PIRProcessor"]
