"""What `vsehub train --help` prints: systems, recipes, stages, and our flags with their defaults. It needs no torch."""

import argparse
import textwrap
import types
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from ..training.flags import own_arguments
from .recipes import FOLDER, described

SYSTEMS = {  # what each trains, and its stages
    "d2s": "D2S-VSE: stages pretrain and finetune, or baseline",
    "pir": "PIR: stages prior and retrieval",
    "rebalanced": "InfoNCE with structure-aware distillation: stage baseline of d2s",
}
ABOUT = """Train a model from a recipe or from flags, and write a Hub folder, OUTPUT_DIR/hub. Each stage keeps its best
epoch on the validation split. Flags win over the recipe; `--pretrain.max_steps 600` is for one stage.

examples:
  vsehub train d2s_vse_flickr8k_cpu --data org/pairs --vision google/mobilenet_v2_1.0_224 \\
      --text sentence-transformers/all-MiniLM-L6-v2 --output_dir runs/mine
  vsehub train recipe.yaml --stages finetune --stage1_model runs/mine/pretrain/best
  vsehub train pir --data org/scenes --instruction microsoft/resnet-50 --output_dir runs/pir

systems, and the stages of each (a recipe names its own; default d2s):
{systems}

recipes (`vsehub recipes`: machine, time and result of each):
{recipes}"""
WORDS = {int: "INT", float: "FLOAT", bool: "BOOL", str: "TEXT"}
GROUPS = ("model", "data", "objective", "training")
EPILOG = "Every flag of transformers' TrainingArguments works, too: `vsehub train --help-all` lists them all."


def help_text(system: str) -> str:
    """The help for one system."""
    parser = argparse.ArgumentParser(
        usage=f"vsehub train [{'|'.join(SYSTEMS)}] [RECIPE] [--flag value ...]",
        description=ABOUT.format(
            systems="\n".join(f"  {name:12}{about}" for name, about in SYSTEMS.items()),
            recipes="\n".join(f"  {path.stem:26}{_short(path)}" for path in sorted(FOLDER.glob("*.yaml"))),
        ),
        epilog=EPILOG,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, max_help_position=36, width=120),
        add_help=False,
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="a recipe from the list above, or a file; also without --recipe"
    )
    parser.add_argument("--stages", nargs="+", metavar="STAGE", help="which to run (default: see systems)")
    parser.add_argument("--quiet", action="store_true", help="print results only: no progress, no remarks")
    parser.add_argument("--verbose", action="store_true", help="let the libraries speak of loading, too")
    for title, kind in zip(GROUPS, own_arguments.OURS["pir" if system == "pir" else "d2s"]):
        group = parser.add_argument_group(title)
        for item in fields(kind):
            group.add_argument(f"--{item.name}", metavar=_kind_of(item), help=_help_of(item))
    return parser.format_help().rstrip()


def _short(path: Path) -> str:
    """The beginning of what a recipe says of itself."""
    return textwrap.shorten(described(path)["about"], 92, placeholder=" ...")


def _kind_of(item: Field) -> str:
    """What a flag takes: INT, FLOAT, BOOL, TEXT, several of them, or one of some words."""
    kind: Any = item.type
    if get_origin(kind) is types.UnionType:  # X | None
        kind = next(each for each in get_args(kind) if each is not type(None))
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) is list:
        word = WORDS[get_args(kind)[0]]
        return f"{word} [{word} ...]"
    return WORDS[kind]


def _help_of(item: Field) -> str:
    """Its help and its default."""
    default = "" if item.default in (MISSING, None, "") else f"default: {item.default}"
    text = item.metadata.get("help", "").rstrip(".")
    return "; ".join(part for part in (text, default) if part)
