"""Recipes: a YAML file whose keys are the flags of `arguments.py`, with a section per stage; flags win over the file.

    vision: $BACKBONES/mobilenet_v2
    data: $DATA/flickr8k
    pretrain: {max_steps: 600}
    finetune: {max_steps: 1200, distill_weight: 2}

On the command line a stage's key is written `--pretrain.max_steps 600`.
"""

import difflib
import json
import math
import os
import re
from argparse import Action
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from ...data.arguments import underscored
from .ranges import with_ranges

MOST_VALUES = 10_000  # of a recipe
MAPPINGS = ("_kwargs", "_config", "deepspeed")  # ends of the names of flags that take one
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
        defaults: settings of the system, and its name as `system`; the recipe and the flags override them.

    Returns:
        For each stage the parsed argument objects, in the order of `kinds`, and the stages to run.

    Raises:
        ValueError: an unknown key, a stage that does not exist, or a recipe of another system.
    """
    argv, common, sections = [underscored(word) for word in argv], {}, {stage: {} for stage in stages}
    path = argv.pop(0) if argv and not argv[0].startswith("-") else None
    flags, staged, wanted = _split_flags(argv, stages)
    if path is not None:
        common = load_recipe(path, given=flags, staged=staged)
        _check_system(path, common.pop("system", None), (defaults or {}).get("system"))
        sections = {stage: common.pop(stage, None) or {} for stage in stages}
    common = {**(defaults or {}), **common}
    numbers = [stage for stage, section in sections.items() if not isinstance(section, dict)]
    if numbers:
        raise ValueError(f"{path}: {numbers[0]} is a section, written `{numbers[0]}: {{flag: value}}`")
    listed = common.pop("stages", None)
    listed = [listed] if isinstance(listed, str) else listed
    wanted = wanted or ([stages[0], stages[1]] if listed is None else listed)
    if not (wanted and isinstance(wanted, list) and all(isinstance(stage, str) for stage in wanted)):
        raise ValueError(f"{path}: stages are names, as `stages: [{stages[0]}, {stages[1]}]`, not {wanted}")
    common.pop("system", None)  # of the defaults
    unknown = set(wanted) - set(stages)
    if unknown:
        raise ValueError(f"unknown stages {sorted(unknown)}; there are {list(stages)}")
    ordered = [stage for stage in stages if stage in wanted]
    if list(wanted) != ordered:  # each stage is given what the one before it has made
        raise ValueError(f"--stages {' '.join(wanted)}: they run once, in this order: --stages {' '.join(ordered)}")
    parser, parsed = with_ranges(_Parser(kinds, allow_abbrev=False)), {}
    known = parser._option_string_actions
    for section, settings in {"": common, **sections}.items():
        for key, value in settings.items():
            _check_setting(f"{path}, stage {section}" if section else f"{path}", key, value, known, stages)
    for stage, words in {"": flags, **staged}.items():
        _check_words(stage, words, known)
    for stage in stages:
        words = _as_flags({**common, **sections[stage]}) + flags + staged[stage]
        try:
            *arguments, left = parser.parse_args_into_dataclasses(words, return_remaining_strings=True)
        except ValueError as error:
            raise ValueError(
                f"{path or 'flags'}, stage {stage}: {_with_remedy(' '.join(str(error).split()))}"
            ) from None
        if left:
            raise ValueError(f"{path or 'flags'}, stage {stage}: no flag takes {' '.join(left)}: leave it out")
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


def _check_system(path: str, asked: Any, own: str | None):
    """Refuse a recipe of another system: what that one sets by itself would be left out without a word."""
    if own is not None and asked not in (None, own):
        raise ValueError(f"{path} is a recipe of the system {asked}, not of {own}: `vsehub train {path}` trains it")


def _check_setting(where: str, key: str, value: Any, known: Mapping[str, Action], stages: Sequence[str]):
    """Refuse a setting of a recipe that is none, or several values where one is wanted."""
    if key in stages:
        raise ValueError(f"{where}: {key} is a stage: its section stands beside that of another, not inside")
    stage, dot, name = key.partition(".")
    if dot and stage in stages:
        raise ValueError(f"{where}: {key} is of a command line; in a recipe it is `{stage}: {{{name}: ...}}`")
    action = known.get(f"--{key}")
    if action is None or key == "help":
        names = [*(flag[2:] for flag in known if flag != "--help"), *stages]
        there_are = f"; stages are {', '.join(stages)}" if isinstance(value, dict) else ""
        raise ValueError(f"{where}: no flag or stage {key}{_meant(key, names) or there_are}")
    if value == []:
        raise ValueError(f"{where}: {key} is an empty list: leave it out")
    words = value.replace(",", " ").split() if isinstance(value, str) else []
    if len(words) > 1 and action.nargs in ("+", "*"):
        raise ValueError(f"{where}: {key}: {value} is one text; write a list, `{key}: [{', '.join(words)}]`")
    wrong = isinstance(value, list) and len(value) > 1 and action.nargs not in ("+", "*")
    if wrong or (isinstance(value, dict) and not key.endswith(MAPPINGS)):
        raise ValueError(
            f"{where}: {key}: {value} is a {'list' if wrong else 'mapping'}, and it takes one value, `{key}: ...`"
        )


def _check_words(stage: str, words: Sequence[str], known: Mapping[str, Action]):
    """Refuse a flag of the command line that is none, or has more values than one."""
    before, left = "", 0.0  # the last flag, and how many more values it takes
    for word in words:
        if word.startswith("--"):
            before, equals, _ = word.partition("=")
            said = f"--{stage}.{before[2:]}" if stage else before
            if before not in known:
                names = [f"--{stage}.{flag[2:]}" if stage else flag for flag in known]
                raise ValueError(f"no flag {said}{_meant(said, names)}")
            left = 0 if equals else _most_values(known[before])
        elif before and not left:
            takes = "none" if known[before].nargs == 0 else "one value"
            raise ValueError(f"{said} takes {takes}, and {word!r} follows it: leave that out")
        else:
            left -= 1


def _most_values(flag: Action) -> float:
    """How many values a flag may have."""
    if flag.nargs in ("+", "*"):
        return math.inf
    return 0 if flag.nargs == 0 else 1


def _meant(name: str, names: Sequence[str]) -> str:
    """What became of a flag of an earlier version, or the flag that was meant."""
    bare = name.rpartition(".")[2].removeprefix("--")
    if bare in RENAMED:
        return f" ({bare}: {RENAMED[bare]})"
    near = difflib.get_close_matches(name, names, 1)
    return f": did you mean {near[0]}?" if near else ""


class _Parser(HfArgumentParser):
    """Raise an error for bad flags, instead of printing two pages of usage and exiting."""

    def error(self, message: str):
        raise ValueError(message)


class _Loader(yaml.SafeLoader):
    """Refuse a key that is there twice: the last one would count, and the others be forgotten."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        names = [_plain(key.value) for key, _ in node.value]
        for (key, _), name in zip(node.value, names):
            if names.count(name) > 1 and name != "<<":  # which merges another mapping, and may be repeated
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} is there twice: leave one out", key.start_mark
                )
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Refuse what YAML 1.1 reads as octal or as hours: 010 as 8, 1:30 as 90."""
        text = self.construct_scalar(node)
        if ":" in text or re.fullmatch(r"[-+]?0[0-7_]+", text):
            said = f"{text} may be read as two numbers: write it without a leading zero or colon, a text in quotes"
            raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
        whole = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if whole else self.construct_yaml_float(node)


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Loader.add_constructor(_tag, _Loader.construct_number)
# As YAML 1.2 has it: PyYAML takes 1e-5 for a text, for want of a point, which no schedule can divide by.
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789"))


def _plain(key: Any) -> Any:
    """A key in the spelling of the flags: `max-steps` is `max_steps`."""
    return key.replace("-", "_") if isinstance(key, str) and not key.startswith("-") else key


def _plain_keys(settings: dict) -> dict:
    return {_plain(key): value for key, value in settings.items()}


def read_recipe(path: str) -> dict:
    """Read a recipe as it is written, with underscores in the names of its flags.

    Raises:
        ValueError: not YAML, or not a mapping.
    """
    try:
        recipe = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        remedy = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        remedy = "; indent with spaces, not with tabs" if r"found character '\t'" in str(error) else remedy
        raise ValueError(f"{path}: not a YAML recipe ({' '.join(str(error).split())}){remedy}") from None
    if not isinstance(recipe, dict):
        empty = "it is empty; " if recipe is None else ""
        raise ValueError(f"{path}: {empty}a recipe is a mapping of flags to values")
    _check_size(recipe, path)
    sections = {key: _plain_keys(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    return _plain_keys(sections)


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


def load_recipe(path: str, given: Sequence[str] = (), staged: Mapping[str, Sequence[str]] | None = None) -> dict:
    """Read a recipe; `$NAME` in its values comes from the environment.

    Args:
        path: of the recipe.
        given: the command line; keys whose flag it holds are left out, and so need no variable.
        staged: stage -> the flags that the command line gives for it alone; they are left out of its section.

    Raises:
        ValueError: not a mapping, or a `$NAME` that is not set.
    """
    flags = _flag_names(given)
    recipe = {key: value for key, value in read_recipe(path).items() if key not in flags}
    for stage, words in (staged or {}).items():
        if isinstance(recipe.get(stage), dict):
            own = flags | _flag_names(words)
            recipe[stage] = {key: value for key, value in recipe[stage].items() if key not in own}
    return _expanded(recipe, path)


def _expanded(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_expanded(item, path) for item in value]
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
                target = wanted if word.partition("=")[0] == "--stages" else flags
            if target is wanted:
                wanted.clear()  # the last one counts, as of any flag
                wanted += [word.partition("=")[2]] if "=" in word else []
                continue
        (flags if target is None else target).append(word)
    return flags, staged, wanted


__all__ = ["given_names", "load_recipe", "parse_stages", "read_recipe"]
