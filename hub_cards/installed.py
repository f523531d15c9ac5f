"""The classes of this installation, each made self-contained: what they save loads where vsehub is absent."""

from ..configuration.configuration_d2s_vse import D2SVSEConfig
from ..modeling.modeling_d2s_vse import D2SVSEModel
from ..processing.processing_d2s_vse import D2SVSEProcessor
from .bundle import self_contained_model, self_contained_processor

self_contained_model(D2SVSEModel)
self_contained_processor(D2SVSEProcessor)

__all__ = ["D2SVSEConfig", "D2SVSEModel", "D2SVSEProcessor"]
