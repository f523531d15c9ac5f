"""Flags that verbs share, so that one thing has one name in all of them, and what is said to the user.

Nothing here, nor at the top of a verb's file, imports torch or transformers: `vsehub VERB --help` answers at once.
"""

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from ..data.arguments import DataArguments
from ..files.numbers import natural_float, positive_int
from ..files.text import printable_lines, without_secrets
from ..files.whole import write_text
from .parser import STDOUT, Parser

DATA_FLAGS = ("image_column", "captions_column", "id_column")
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


def add_json(parser: Parser, what: str):
    """Add `--json [FILE]`: alone it prints JSON in place of text; with a file the text is printed and JSON written."""
    parser.add("--json", nargs="?", const=STDOUT, metavar="FILE", help=f"{what} as JSON: printed, or written to FILE")


def tell(
    args: argparse.Namespace, text: str, content, encode: Callable = lambda content: json.dumps(content, indent=2)
):
    """Print a result as text, or as JSON where `--json` asks for it, or both: text here, JSON in a file.

    In a job of several processes, only the first prints.
    """
    if int(os.environ.get("RANK", 0)) > 0:
        return
    if args.json == STDOUT:
        print(encode(content).rstrip("\n"))
        return
    print(printable_lines(text))
    if args.json:
        write_text(args.json, encode(content))


def remark(args: argparse.Namespace, text: str):
    """Print a remark that is not a result to stderr, unless `--quiet` is given."""
    if not args.quiet:
        print(without_secrets(printable_lines(text)), file=sys.stderr)


def add_data_flags(parser: Parser, split: str):
    """Add what says which rows are read, and how: DATA, `--split`, columns, what to do with bad rows."""
    parser.add_place(
        "data", "Hub id, table (parquet, CSV, JSON lines), imagefolder, json (Karpathy, COCO), official folder"
    )
    parser.add("--split", default=split, help="default: %(default)s")
    add_row_flags(parser)


def add_row_flags(parser: Parser):
    """Add the flags of `DataArguments` that say how rows are read."""
    add_data_config(parser)
    parser.add("--image_root", help="folder of the image files that a manifest names")
    for name in DATA_FLAGS:
        parser.add(f"--{name}", default=DataArguments.__dataclass_fields__[name].default, help="default: %(default)s")
    parser.add("--on_bad_sample", choices=("error", "quarantine"), default="error", help="default: %(default)s")


def add_data_config(parser: Parser):
    """Add `--data_config`."""
    parser.add("--data_config", help="configuration of a dataset that has several")


def data_arguments(args: argparse.Namespace, **more) -> DataArguments:
    """`DataArguments` of a verb that has `--data` and the flags of `add_row_flags`."""
    names = ("data", "data_config", "image_root", *DATA_FLAGS, "on_bad_sample")
    return DataArguments(**{name: getattr(args, name) for name in names}, **more)


def add_wait(parser: Parser):
    """Add `--wait [SECONDS]` of the verbs that write an index."""
    parser.add(
        "--wait",
        nargs="?",
        type=seconds,
        const=math.inf,
        default=0.0,
        metavar="SECONDS",
        help="wait for another writer of the index, at most so long (alone: as long as it takes), in place of an error",
    )


def add_images(parser: Parser):
    """Add `--images`."""
    parser.add(
        "--images",
        action="append",
        type=existing,
        default=[],
        metavar="FOLDER",
        help="of an index that was not made here: open pictures of this folder (again for more)",
    )


def tell_images(args: argparse.Namespace, index):
    """Say which of `--images` holds nothing of the index: its pictures would be missing without a reason."""
    from ..search.pages import without_pictures

    for folder in without_pictures(index, args.images):
        remark(
            args,
            f"--images {folder}: no picture of {args.index} was found in it; name the folder that was indexed, as it "
            "lies here now",
        )


def add_bands(parser: Parser):
    """Add `--bands`."""
    parser.add("--bands", type=positive_int, nargs=3, help="of multi-band TIFF, counted from 1, as red, green, blue")


def add_device(parser: Parser, default: str = "auto"):
    """Add `--device`."""
    parser.add(
        "--device", type=device_name, default=default, help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)"
    )


def add_trust(parser: Parser):
    """Add `--revision` and `--trust_remote_code`, see `loading_options`."""
    parser.add("--revision", help="commit, tag or branch of the model on the Hub")
    parser.add(
        "--trust_remote_code",
        action="store_true",
        help="run the model's own code; for a model on the Hub add --revision COMMIT, the one that you have read",
    )


def loading_options(args: argparse.Namespace, model: str | None) -> dict:
    """Arguments of `from_pretrained` for a model that the command line names.

    Raises:
        ValueError: a revision of a folder; code that would run without a stated commit.
    """
    here = model is not None and os.path.isdir(model)
    if args.revision and (here or model is None):
        raise ValueError("--revision goes with a model on the Hub that is named here: a folder has one version")
    if args.trust_remote_code:
        if model is None:
            raise ValueError("--trust_remote_code goes with --model: no index decides whose code runs")
        if not here and not re.fullmatch("[0-9a-f]{40}", args.revision or ""):
            raise ValueError(
                f"--trust_remote_code runs the code of {model}: add --revision COMMIT, the one you have read"
            )
        if here:
            _own_code_alone(model)
    options = {"trust_remote_code": args.trust_remote_code}
    return options | ({"revision": args.revision} if args.revision else {})


def _own_code_alone(folder: str):
    """Refuse a folder whose settings name code in a repository, which no commit would pin."""
    for path in Path(folder).rglob("*.json"):
        if re.search(r'("auto_map"[^}]*|"type"[^,}]*)--', path.read_text(encoding="utf-8", errors="replace")):
            raise ValueError(
                f"{path} takes code from another repository: copy that code into the folder, or name the repository"
            )


def add_dtype(parser: Parser, what: str, default: str | None = None):
    """Add `--dtype`, the numbers that embeddings are computed in."""
    parser.add(
        "--dtype",
        type=dtype_name,
        choices=("auto", "float32", "bfloat16"),
        default=default,
        help=f"numbers that {what} (default: float32); bfloat16 is faster and less exact",
    )


def chosen_device(name: str):
    """The `torch.device` that `--device` names; `auto` is the GPU if there is one. accelerate takes the same.

    Raises:
        ValueError: there is no such device here, or several processes, each of which has its own.
    """
    import torch

    if name == "auto":
        kinds = (kind for kind in ("cuda", "mps") if getattr(torch, kind).is_available())
        return torch.device(next(kinds, "cpu"))
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError(f"--device {name}: of several processes each has a device of its own; leave --device out")
    device = torch.device(name)
    if device.type != "cpu":
        backend = getattr(torch, device.type)
        if not backend.is_available() or (device.index or 0) >= backend.device_count():
            raise ValueError(f"--device {name}: there is no such device here; take --device cpu")
    os.environ["ACCELERATE_TORCH_DEVICE"] = name
    return device


# Types of words; those of numbers are in files/numbers.py.


def dtype_name(text: str) -> str:
    """A type of numbers, by its long or short name: `bf16` is `bfloat16`."""
    return DTYPES.get(text, text)


def existing(text: str) -> str:
    """A folder or file that is there."""
    if not os.path.exists(text):
        raise argparse.ArgumentTypeError(f"{text}: no such folder")
    return text


def seconds(text: str) -> float:
    """Seconds to wait, at least 0."""
    try:
        return natural_float(text)
    except argparse.ArgumentTypeError as error:  # as of `--wait photos/`
        raise argparse.ArgumentTypeError(f"{error}; without a number, put it at the end") from None


def device_name(text: str) -> str:
    """`auto`, or what `torch.device` takes."""
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu|npu)(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"must be auto, cpu, cuda, cuda:1, mps or the like, not {text}")
    return text
