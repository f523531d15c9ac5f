"""The installed classes, whose `save_pretrained` writes a self-contained repository."""

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..configuration.configuration_pir import PIRConfig
from ..modeling.modeling_d2s_vse import D2SVSEModel
from ..modeling.modeling_pir import PIRModel
from ..processing.processing_d2s_vse import D2SVSEProcessor
from ..processing.processing_pir import PIRProcessor
from .bundle import self_contained_model, self_contained_processor

for model_class in (D2SVSEModel, PIRModel):
    self_contained_model(model_class)
for processor_class in (D2SVSEProcessor, PIRProcessor):
    self_contained_processor(processor_class)

__all__ = ["D2SVSEConfig", "D2SVSEModel", "D2SVSEProcessor", "PIRConfig", "PIRModel", "PIRProcessor"]
