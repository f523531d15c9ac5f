"""Every number of an architecture, documented and validated."""

from transformers import AutoConfig

from .configuration_d2s_vse import D2SVSEConfig

AutoConfig.register(D2SVSEConfig.model_type, D2SVSEConfig, exist_ok=True)

__all__ = ["D2SVSEConfig"]
