"""Inputs to embeddings; nothing about training."""

from transformers import AutoModel, AutoModelForZeroShotImageClassification

from .modeling_d2s_vse import D2SVSEModel
from .modeling_pir import PIRModel

for auto_class in (AutoModel, AutoModelForZeroShotImageClassification):
    for model_class in (D2SVSEModel, PIRModel):
        auto_class.register(model_class.config_class, model_class, exist_ok=True)

__all__ = ["D2SVSEModel", "PIRModel"]
