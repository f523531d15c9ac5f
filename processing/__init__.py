"""Pictures, scenes and captions to tensors."""

from transformers import AutoProcessor

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..configuration.configuration_pir import PIRConfig
from .processing_d2s_vse import D2SVSEProcessor
from .processing_pir import PIRProcessor

AutoProcessor.register(D2SVSEConfig, D2SVSEProcessor, exist_ok=True)
AutoProcessor.register(PIRConfig, PIRProcessor, exist_ok=True)

__all__ = ["D2SVSEProcessor", "PIRProcessor"]
