"""Inputs to embeddings; nothing about training."""

from transformers import AutoModel, AutoModelForZeroShotImageClassification

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from .modeling_d2s_vse import D2SVSEModel

for auto_class in (AutoModel, AutoModelForZeroShotImageClassification):
    auto_class.register(D2SVSEConfig, D2SVSEModel, exist_ok=True)

__all__ = ["D2SVSEModel"]
