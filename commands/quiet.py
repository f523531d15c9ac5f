"""`--quiet`: progress bars, remarks and warnings are silenced while a verb runs, also those of libraries.

Without it, too, libraries do not speak of how they load a model or read a data set, unless `--verbose` is given.
"""

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
REPORTERS = ("transformers.modeling_utils", "transformers.utils.loading_report")  # loggers of tables of weights
WORTH_SAYING = ("MISSING", "MISMATCH", "CONVERSION")  # states of weights in such a table
NOT_WORTH_SAYING = "RNN module weights are not part of single contiguous chunk"  # of GPO's 32 units, on a GPU
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


def calm(verbose: bool = False):
    """Hide what libraries say of loading, until `unhush`; call it when what is slow has been imported.

    These are the bars "Loading weights" and "Generating train split", tables of weights that a model leaves unused, and
    a warning of cuDNN.
    A table with a weight that is missing or has another shape is shown, and so are downloads from the Hub.

    Args:
        verbose: hide nothing.
    """
    if verbose:
        return
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as transformers_logging

    if transformers_logging.is_progress_bar_enabled():
        downloads = disable_progress_bars if are_progress_bars_disabled() else enable_progress_bars
        SILENCED.callback(downloads)
        SILENCED.callback(transformers_logging.enable_progress_bar)
        transformers_logging.disable_progress_bar()
        downloads()
    SILENCED.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", NOT_WORTH_SAYING)
    for name in REPORTERS:
        SILENCED.callback(logging.getLogger(name).removeFilter, is_worth_saying)
        logging.getLogger(name).addFilter(is_worth_saying)
    SILENCED.callback(_set, "HF_DATASETS_DISABLE_PROGRESS_BARS", os.environ.get("HF_DATASETS_DISABLE_PROGRESS_BARS"))
    os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
    datasets = sys.modules.get("datasets")
    if datasets is not None and not datasets.are_progress_bars_disabled():
        SILENCED.callback(datasets.enable_progress_bars)
        datasets.disable_progress_bars()


def is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether a log record is no table of weights of which all are merely unused."""
    said = record.getMessage()
    return "LOAD REPORT" not in said or any(state in said for state in WORTH_SAYING)


def unhush():
    """Undo `hush` and `calm`; without it, do nothing."""
    SILENCED.close()


def _set(name: str, value: str | None):
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
