"""vsehub: visual-semantic embeddings, Hub-native."""

import vsehub.configuration
import vsehub.modeling
import vsehub.processing  # noqa: F401  (the three register their classes with transformers' Auto classes)
from vsehub.hub_cards.installed import (
    D2SVSEConfig,
    D2SVSEModel,
    D2SVSEProcessor,
    PIRConfig,
    PIRModel,
    PIRProcessor,
)

__version__ = "0.1.0"

__all__ = ["D2SVSEConfig", "D2SVSEModel", "D2SVSEProcessor", "PIRConfig", "PIRModel", "PIRProcessor"]
