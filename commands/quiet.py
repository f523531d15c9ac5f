"""`--quiet`: progress bars, remarks and warnings are silenced while a verb runs, also those of libraries."""

import contextlib
import logging
import os
import sys
import warnings

ENVIRONMENT = {  # read by what is imported later, and by processes that are started from here
    "TQDM_DISABLE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_VERBOSITY": "error",
    "DATASETS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore",
}
LIBRARIES = ("transformers.utils.logging", "datasets.utils.logging")  # where they are imported already
SILENCED = contextlib.ExitStack()  # how to undo it


def hush():
    """Silence everything but results and errors, until `unhush`."""
    for name, value in ENVIRONMENT.items():
        SILENCED.callback(_set, name, os.environ.get(name))
        os.environ[name] = value
    ours = logging.getLogger("vsehub")
    SILENCED.callback(ours.setLevel, ours.level)
    ours.setLevel(logging.ERROR)
    SILENCED.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for library in filter(None, map(sys.modules.get, LIBRARIES)):
        SILENCED.callback(library.set_verbosity, library.get_verbosity())
        library.set_verbosity_error()


def unhush():
    """Undo `hush`; without it, do nothing."""
    SILENCED.close()


def _set(name: str, value: str | None):
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
