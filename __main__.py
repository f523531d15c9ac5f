"""The table of contents: `vsehub VERB ...`. Each verb is a file of `commands/`, imported only when it is asked for."""

import difflib
import importlib
import os
import sys

from .commands.quiet import unhush
from .files.memory import reuse_memory
from .files.text import printable, without_secrets
from .files.threads import wait_asleep

VERBS = {
    "train": "train from a recipe or from flags",
    "recipes": "what each recipe trains, on what machine, how long, with what result",
    "plot": "losses, metrics and learning rates of training runs, as a picture",
    "teachers": "features of frozen uni-modal models as columns of the data",
    "index": "embed a folder, scene or dataset into an index, or update one",
    "search": "find pictures by text, picture or both; JSON, HTML, GeoJSON",
    "serve": "a page and an HTTP API over an index",
    "evaluate": "retrieval metrics of a saved model on a split, by named protocols",
    "analyse": "what embedding spaces are like: rank, uniformity, modality gap, recall by caption",
    "compare": "two evaluations of the same queries: differences, intervals, p-values",
    "caption": "dense captions from a vision-language model, resumable",
    "push": "a saved model to a Hub repository, in one commit",
    "export": "a model to ONNX (two graphs), or to bfloat16",
    "convert": "official checkpoints to Hub folders",
    "check-leakage": "images that two sources or splits share, also resized or turned",
    "explain": "draw which parts of an image a PIR model relies on",
    "demo": "both stages on a generated dataset, then search it",
    "demo-pir": "PIR on generated overhead scenes, with belief maps",
    "info": "versions and devices, for issue reports",
}
LONGEST = 1500  # characters of an error
EXPECTED = (
    ValueError,
    TypeError,
    OSError,
    ImportError,
    FloatingPointError,
    RecursionError,
)  # bad input; all other errors are faults of vsehub

BATCHES = {"train": "--per_device_train_batch_size"} | dict.fromkeys(
    ("index", "evaluate", "analyse", "caption", "teachers"), "--batch_size"
)  # what makes a verb's batches smaller


def main(argv: list[str] | None = None) -> int:
    """Run one verb; bad input ends in one line and exit status 2 (`VSEHUB_TRACEBACK=1` shows where)."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: vsehub VERB [...]\n")
        print("\n".join(f"  {verb:14} {about}" for verb, about in VERBS.items()))
        print("\n`vsehub VERB --help` tells more. `vsehub --version` prints the version.")
        return 0
    if argv[0] == "--version":
        from . import __version__

        print(f"vsehub {__version__}")
        return 0
    verb, rest = argv[0].replace("_", "-"), argv[1:]
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}"
        _complain(_shortened(without_secrets(printable(f"vsehub: no verb {argv[0]!r}; {remedy}"))))
        return 2
    wait_asleep()
    reuse_memory()  # towers on a CPU take and free large blocks, layer after layer
    try:
        _none_empty(rest)
        status = importlib.import_module(f"vsehub.commands.{verb.replace('-', '_')}").main(rest) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # the reader of stdout, such as `head`, has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        _complain(f"vsehub {verb}: interrupted")
        return 130
    except Exception as error:
        if _is_out_of_memory(error) and not os.environ.get("VSEHUB_TRACEBACK"):
            smaller = f"lower {BATCHES[verb]}" if verb in BATCHES else "free some, or choose another --device"
            _complain(f"vsehub {verb}: the device has too little memory: {smaller}")
            return 2
        network = type(error).__module__.startswith("httpx")  # the Hub's client lets errors of its transport through
        if not (network or isinstance(error, EXPECTED)) or os.environ.get("VSEHUB_TRACEBACK"):
            raise
        _complain(f"vsehub {verb}: {_shortened(without_secrets(printable(_told(error))))}")
        return 2
    finally:
        unhush()


def _is_out_of_memory(error: Exception) -> bool:
    """Whether PyTorch has no memory left on a device; PyTorch is imported only if a verb did."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _complain(line: str):
    """Print an error; do nothing if stderr is closed."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _none_empty(words: list[str]):
    """Refuse empty arguments, as of an unset shell variable: as a path, one would be the working directory."""
    for place, word in enumerate(words):
        if not word or (word.startswith("--") and word.endswith("=")):
            before = f" (after {words[place - 1]})" if place and not word else ""
            raise ValueError(f"argument {place + 1}{before} is empty: leave it out, or set the variable it came from")


def _shortened(line: str) -> str:
    """Limit the length of a line, which may repeat a long command line."""
    return line if len(line) <= LONGEST else f"{line[:LONGEST]} ..."


def _told(error: Exception) -> str:
    """The message of an error; errors of the system as `FILE: reason`."""
    if isinstance(error, RecursionError):
        return "a file is nested too deeply to be read (VSEHUB_TRACEBACK=1 shows where)"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror.lower()}"
    if not isinstance(error, EXPECTED):
        return f"the Hub cannot be reached ({error}): try again with a network"
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
