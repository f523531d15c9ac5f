"""What all verbs share: a parser whose errors are one line, one name for one thing, ranges checked before the work.

Nothing here, nor at the top of a verb's file, imports torch or transformers: `vsehub VERB --help` answers at once.
"""

import argparse
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.arguments import DataArguments, underscored
from ..files.numbers import natural_float, positive_int
from ..files.outputs import output_file
from ..files.text import printable_lines, without_secrets
from ..files.whole import write_text
from .quiet import hush

STDOUT = "-"  # what `--json` without a file means
DATA_FLAGS = ("image_column", "captions_column", "id_column")
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


class Parser(argparse.ArgumentParser):
    """The command line of one verb; every verb has `--quiet` and `--verbose`.

    An argument added with `add_place` is given by position or by name: `vsehub evaluate MODEL` or
    `vsehub evaluate --model MODEL`. Flags may be written with dashes, too (`--image-root`).

    Args:
        verb: its name.
        about: what it does, in one sentence.
        example: a typical command line.
    """

    def __init__(self, verb: str, about: str, example: str):
        super().__init__(
            f"vsehub {verb}",
            description=f"{about}\n\nexample: vsehub {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            add_help=False,
        )
        self.places: list[tuple[str, bool]] = []  # name, whether it is required
        self.joins = False  # whether the last one takes all words that are left
        self.first = ""  # the flag that takes the words before all flags, see `words_first`
        self.needs: list[tuple[str, str, Callable]] = []  # of `add_need`
        self.rivals: list[tuple[str, str]] = []  # of `add_rivals`
        self.voids: list[tuple[str, Callable, str, str]] = []  # of `add_void`
        self.place_group = self.add_argument_group("arguments, by place or by name")
        self.flag_group = self.add_argument_group("flags")
        self.flag_group.add_argument("-h", "--help", action="help", help="show this text")
        self.flag_group.add_argument("--quiet", action="store_true", help="print results only: no progress, no remarks")
        self.flag_group.add_argument("--verbose", action="store_true", help="let the libraries speak for themselves")

    def add_place(self, name: str, help: str, required: bool = True, joins: bool = False):
        """Add an argument that is given by its place among such arguments, or as `--name`.

        Args:
            name: of the argument.
            help: a line for `--help`.
            required: whether it must be given.
            joins: it is the last one, and takes all words that are left, as a text that was not quoted.
        """
        self.places.append((name, required))
        self.joins = joins
        self.place_group.add_argument(f"--{name}", metavar=name.upper(), help=help)

    def add(self, *names, **options):
        """Add a flag; options are those of `argparse`."""
        self.flag_group.add_argument(*names, **options)

    def add_need(self, flag: str, what: str, met: Callable[[argparse.Namespace], Any]):
        """Refuse a flag that is given where it changes nothing.

        Args:
            flag: its name, without dashes.
            what: what it needs, for the error: "--tile".
            met: whether that is there, in a parsed command line.
        """
        self.needs.append((flag, what, met))

    def add_rivals(self, flag: str, other: str):
        """Refuse two flags that are given together: one of them would change nothing."""
        self.rivals.append((flag, other))

    def add_void(self, names: str, where: Callable[[argparse.Namespace], Any], why: str, remedy: str = "leave it out"):
        """Refuse flags that another flag, or its absence, makes void; one that has its default value passes.

        Args:
            names: of the flags.
            where: whether they are void, in a parsed command line.
            why: what makes them so, for the error: `without --api_base`.
            remedy: what to do.
        """
        self.voids.append((names, where, why, remedy))

    def parse_args(  # type: ignore[override]  # argparse's is overloaded for namespaces of one's own
        self, args: list[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a command line; with `--quiet`, silence the libraries.

        Raises:
            ValueError: a flag that does not exist, a value out of range, an argument that is missing or too many.
            OSError: `--json FILE` names something that cannot be written.
        """
        words = list(sys.argv[1:] if args is None else args)
        end = words.index("--") if "--" in words else len(words)
        self._set_usage()
        parsed, left = self.parse_known_args([underscored(word) for word in words[:end]], namespace)
        for word in left:
            if word.startswith("-") and not re.fullmatch(r"-|-\d.*", word):
                self.error(f"there is no flag {word.partition('=')[0]}{self._meant(word)}")
        self._fill_places(parsed, left + words[end + 1 :])
        self._refuse_void(parsed, words[:end])
        if getattr(parsed, "json", None) not in (None, STDOUT):
            output_file(parsed.json)
        if parsed.quiet:
            hush()
        return parsed

    def _refuse_void(self, parsed: argparse.Namespace, words: list[str]):
        """Refuse flags that are given and would change nothing."""
        unset = argparse.Namespace(**{action.dest: None for action in self._actions})  # no default is None here
        given = vars(self.parse_known_args([underscored(word) for word in words], unset)[0])
        for flag, other in self.rivals:
            if given[flag] is not None and given[other] is not None:
                self.error(f"--{flag} and --{other} contradict each other: leave one of them out")
        for flag, what, met in self.needs:
            if given[flag] is not None and not met(parsed):
                self.error(f"--{flag} changes nothing without {what}: add that, or leave --{flag} out")
        for names, where, why, remedy in self.voids:
            for name in names.split() if where(parsed) else ():
                if getattr(parsed, name) != self.get_default(name):
                    self.error(f"--{name} {getattr(parsed, name)} has no effect {why}: {remedy}")

    def _fill_places(self, parsed: argparse.Namespace, words: list[str]):
        """Give the words without a flag, in order, to the arguments that were not given by name."""
        named = [name for name, _ in self.places if getattr(parsed, name) is not None]
        free = [name for name, _ in self.places if name not in named]
        if self.joins and len(words) > len(free) > 0 and free[-1] == self.places[-1][0]:
            words = [*words[: len(free) - 1], " ".join(words[len(free) - 1 :])]
        for name, word in zip(free, words):
            setattr(parsed, name, word)
        if len(words) > len(free):
            rest = " ".join(words[len(free) :])
            if self.first:
                self.error(
                    f"{rest!r} stands behind other flags: put it before all of them, or write {self.first} {rest}"
                )
            if len(words) <= len(self.places):
                self.error(f"the {self.places[len(words) - 1][0]} is given twice: once is enough")
            self.error(f"too many words, from {rest!r} on; quote a text of several words")
        missing = [name.upper() for name, required in self.places if required and getattr(parsed, name) is None]
        if missing:
            self.error(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; usage: {self.usage}")

    def _meant(self, word: str) -> str:
        near = difflib.get_close_matches(word.partition("=")[0], self._option_string_actions, 1)
        return f"; did you mean {near[0]}?" if near else f"; `{self.prog} --help` lists them"

    def _set_usage(self):
        places = [name.upper() if required else f"[{name.upper()}]" for name, required in self.places]
        needed = [f"{a.option_strings[0]} {a.dest.upper()}" for a in self._actions if a.required and a.option_strings]
        self.usage = " ".join([self.prog, *places, *needed, "[--flag ...]"])

    def error(self, message: str):
        """Raise what `vsehub` prints as one line.

        Raises:
            ValueError: always.
        """
        raise ValueError(message)


def words_first(words: list[str], flag: str) -> list[str]:
    """A command line whose words before the first flag are given to `flag`, which takes several."""
    first = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    return [flag, *words] if first else words


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
