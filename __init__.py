"""vsehub: visual-semantic embeddings, Hub-native.

`import vsehub` loads neither torch nor transformers: the classes below are imported when they are first asked for. From
then on `AutoModel`, `AutoConfig` and `AutoProcessor` of transformers know them too, without `trust_remote_code`.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .hub_cards.installed import (
        D2SVSEConfig,
        D2SVSEModel,
        D2SVSEProcessor,
        PIRConfig,
        PIRModel,
        PIRProcessor,
    )
    from .search.retriever import Retriever

__version__ = "0.1.0"

__all__ = ["D2SVSEConfig", "D2SVSEModel", "D2SVSEProcessor", "PIRConfig", "PIRModel", "PIRProcessor", "Retriever"]

INSTALLED = "vsehub.hub_cards.installed"
HOMES = dict.fromkeys(__all__, INSTALLED) | {"Retriever": "vsehub.search.retriever"}
FOLDERS = """commands configuration data demos evaluation files hub_cards losses modeling plots processing search
training""".split()


def __getattr__(name: str):
    """Import a class, or a folder, when it is first asked for."""
    if name in HOMES:
        value = getattr(importlib.import_module(HOMES[name]), name)
        globals()[name] = value
        return value
    if name in FOLDERS:
        return importlib.import_module(f"vsehub.{name}")
    raise AttributeError(f"module 'vsehub' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List what can be imported from here."""
    return sorted({*globals(), *__all__, *FOLDERS})


class FrontDoor(types.ModuleType):
    """This module. Python sets a folder as its attribute once the folder is imported.

    So whoever imports a model or a processor from its own file, and not from here, also gets what `installed` adds: all
    classes are registered with transformers, and what they save loads where vsehub is absent.
    """

    def __setattr__(self, name: str, value):
        """Complete the classes as soon as there are any."""
        super().__setattr__(name, value)
        if name in ("modeling", "processing"):
            importlib.import_module(INSTALLED)


sys.modules[__name__].__class__ = FrontDoor
