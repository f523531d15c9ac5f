"""Every number of an architecture, documented and validated."""

from transformers import AutoConfig

from .configuration_d2s_vse import D2SVSEConfig
from .configuration_pir import PIRConfig

for config_class in (D2SVSEConfig, PIRConfig):
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)

__all__ = ["D2SVSEConfig", "PIRConfig"]
