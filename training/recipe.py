"""Recipes: a YAML file whose keys are the flags of `arguments.py`, with a section per stage; flags win over the file.

    vision: $BACKBONES/mobilenet_v2
    data: $DATA/flickr8k
    pretrain: {max_steps: 600}
    finetune: {max_steps: 1200, distill_weight: 2}

On the command line a stage's key is written `--pretrain.max_steps 600`.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ..data.arguments import underscored
from .limits import with_ranges

MOST_VALUES = 10_000  # of a recipe
RENAMED = {  # flags of earlier versions: what became of them
    "teacher": "now dense_teacher",
    "max_dense_length": "every text is cut at max_text_length",
    "structure_distance": "removed; relations are compared by their mean absolute difference",
    "structure_temperature": "removed; it only scaled the loss: set structure_weight",
    "structure_mask_same_image": "removed; captions of one image are always compared",
}


def parse_stages(
    argv: list[str], stages: tuple[str, ...], kinds: tuple[type, ...], defaults: dict | None = None
) -> tuple[dict[str, tuple], list[str]]:
    """Parse `[RECIPE.yaml] [--flag value ...]` once per stage.

    Args:
        argv: the command line.
        stages: names of the sections a recipe may have; the first two are the default of `--stages`.
        kinds: dataclasses of arguments (`arguments.py`).
        defaults: settings of the system; the recipe and the flags override them.

    Returns:
        For each stage the parsed argument objects, in the order of `kinds`, and the stages to run.

    Raises:
        ValueError: an unknown key, or a stage that does not exist.
    """
    argv, common, sections = [underscored(word) for word in argv], {}, {stage: {} for stage in stages}
    path = argv.pop(0) if argv and not argv[0].startswith("-") else None
    flags, staged, wanted = _split_flags(argv, stages)
    if path is not None:
        common = load_recipe(path, given=flags)
        sections = {stage: common.pop(stage, None) or {} for stage in stages}
    common = {**(defaults or {}), **common}
    numbers = [stage for stage, section in sections.items() if not isinstance(section, dict)]
    if numbers:
        raise ValueError(f"{path}: {numbers[0]} is a section, written `{numbers[0]}: {{flag: value}}`")
    listed = common.pop("stages", None)
    wanted = wanted or ([listed] if isinstance(listed, str) else listed) or [stages[0], stages[1]]
    if not (isinstance(wanted, list) and all(isinstance(stage, str) for stage in wanted)):
        raise ValueError(f"{path}: stages are names, as `stages: [{stages[0]}, {stages[1]}]`, not {wanted}")
    common.pop("system", None)
    unknown = set(wanted) - set(stages)
    if unknown:
        raise ValueError(f"unknown stages {sorted(unknown)}; there are {list(stages)}")
    ordered = [stage for stage in stages if stage in wanted]
    if list(wanted) != ordered:  # each stage is given what the one before it has made
        raise ValueError(f"--stages {' '.join(wanted)}: they run once, in this order: --stages {' '.join(ordered)}")
    parsed = {}
    for stage in stages:
        words = _as_flags({**common, **sections[stage]}) + flags + staged[stage]
        parser = with_ranges(_Parser(kinds, allow_abbrev=False))
        try:
            *arguments, left = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
        except ValueError as error:
            raise ValueError(
                f"{path or 'flags'}, stage {stage}: {_with_remedy(' '.join(str(error).split()))}"
            ) from None
        if left:
            raise ValueError(f"{path or 'flags'}, stage {stage}: unknown keys or flags: {left}{_renamed(left)}")
        parsed[stage] = tuple(arguments)
    return parsed, list(wanted)


def given_names(argv: list[str], stages: tuple[str, ...]) -> tuple[set[str], dict[str, set[str]]]:
    """Names of the flags of a command line, and of the settings that it or its recipe gives for one stage alone.

    Args:
        argv, stages: as for `parse_stages`, which has read them without an error.
    """
    argv = [underscored(word) for word in argv]
    recipe = read_recipe(argv.pop(0)) if argv and not argv[0].startswith("-") else {}
    flags, staged, _ = _split_flags(argv, stages)
    own = {stage: _flag_names(staged[stage]) | set(recipe.get(stage) or {}) for stage in stages}
    return _flag_names(flags).union(*(_flag_names(words) for words in staged.values())), own


def _flag_names(words: Sequence[str]) -> set[str]:
    return {word.partition("=")[0][2:].removeprefix("no_") for word in words if word.startswith("--")}


def _with_remedy(error: str) -> str:
    """An error of transformers, and the way out where it names none."""
    if "False is not a valid" in error:  # of a recipe
        return f"{error}; YAML reads `no` as false: write it in quotes, 'no'"
    last = "; to keep the last model in place of the best: --load_best_model_at_end False"
    return error.rstrip(".") + last if "load_best_model_at_end requires" in error else error


def _renamed(left: list[str]) -> str:
    """Explain flags of earlier versions."""
    flags = {word.partition("=")[0].removeprefix("--") for word in left}
    return "".join(f" ({old}: {now})" for old, now in RENAMED.items() if old in flags)


class _Parser(HfArgumentParser):
    """Raise an error for bad flags, instead of printing two pages of usage and exiting."""

    def error(self, message: str):
        raise ValueError(message)


class _Loader(yaml.SafeLoader):
    """Refuse a key that is there twice: the last one would count, and the others be forgotten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [key.value for key, _ in node.value]
        twice = next((key for key, _ in node.value if names.count(key.value) > 1 and key.value != "<<"), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {twice.value!r} is there twice: leave one out", twice.start_mark
            )
        return super().construct_mapping(node, deep)


def read_recipe(path: str) -> dict:
    """Read a recipe as it is written.

    Raises:
        ValueError: not YAML, or not a mapping.
    """
    try:
        recipe = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not a YAML recipe ({' '.join(str(error).split())})") from None
    if not isinstance(recipe, dict):
        raise ValueError(f"{path}: a recipe is a mapping of flags to values")
    _check_size(recipe, path)
    return recipe


def _check_size(recipe: dict, path: str):
    """Refuse a recipe that a few aliases make huge or endless; they are counted each time that they are used."""
    left, values = MOST_VALUES, [recipe]
    while values:
        value = values.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"{path}: more than {MOST_VALUES:,} values, counted as often as aliases repeat them")
        if isinstance(value, dict):
            values += value.values()
            if not all(isinstance(key, str) for key in value):
                raise ValueError(f"{path}: the keys of a recipe are names of flags")
        elif isinstance(value, (list, tuple, set)):
            values += value


def load_recipe(path: str, given: Sequence[str] = ()) -> dict:
    """Read a recipe; `$NAME` in its values comes from the environment.

    Args:
        path: of the recipe.
        given: the command line; keys whose flag it holds are left out, and so need no variable.

    Raises:
        ValueError: not a mapping, or a `$NAME` that is not set.
    """
    flags = {word.partition("=")[0][2:] for word in given if word.startswith("--")}
    return _expanded({key: value for key, value in read_recipe(path).items() if key not in flags}, path)


def _expanded(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, str) and "$" in value:
        value = os.path.expandvars(value)
        if "$" in value:
            raise ValueError(f"{path}: {value} names a variable that is not set; export it, or pass the flag")
    return value


def _as_flags(values: dict) -> list[str]:
    words = []
    for key, value in values.items():
        items = value if isinstance(value, list) else [value]
        if value is not None:
            words += [f"--{key}", *(json.dumps(item) if isinstance(item, dict) else str(item) for item in items)]
    return words


def _split_flags(argv: list[str], stages: Sequence[str]) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Separate common flags, flags of one stage (`--pretrain.x`), and the stages to run (`--stages a b`)."""
    flags, staged, wanted, target = [], {stage: [] for stage in stages}, [], None
    for word in argv:
        if word.startswith("--"):
            stage, dot, name = word[2:].partition(".")
            if dot and stage in stages:
                target, word = staged[stage], f"--{name}"
            else:
                target = wanted if word == "--stages" else flags
            if word == "--stages":
                wanted.clear()  # the last one counts, as of any flag
                continue
        (flags if target is None else target).append(word)
    return flags, staged, wanted


__all__ = ["given_names", "load_recipe", "parse_stages", "read_recipe"]
