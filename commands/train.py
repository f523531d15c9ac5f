"""`vsehub train [d2s|pir|rebalanced] [RECIPE] [--flag value ...]`: the training scripts under one verb."""

import importlib

from ..data.arguments import underscored
from .quiet import calm, hush
from .recipes import path_of_recipe
from .train_help import SYSTEMS, help_text


def main(argv: list[str]) -> int:
    """Choose the script by name, by the recipe's `system`, or D2S-VSE; hand over the rest.

    Raises:
        ValueError: nothing to train, or a recipe of a system that does not exist.
    """
    argv = [underscored(word) for word in argv]
    if "--quiet" in argv:
        argv.remove("--quiet")
        hush()
    verbose = "--verbose" in argv
    argv = _recipe_first([word for word in argv if word != "--verbose"])
    if not argv:
        raise ValueError("say what to train: a recipe, or flags; `vsehub train --help` lists them")
    named = argv[0] in SYSTEMS
    if "-h" in argv or "--help" in argv:
        print(help_text(argv[0] if named else "d2s"))
        return 0
    system, rest = (argv[0], argv[1:]) if named else (_system_of(argv), argv)
    script = importlib.import_module(f"vsehub.training.run_{system}")
    calm(verbose)
    return script.main(["--help" if word == "--help_all" else word for word in rest])


def _recipe_first(argv: list[str]) -> list[str]:
    """The command line with `--recipe NAME` at its place, and the name of a recipe of vsehub as its path."""
    argv = list(argv)
    for place, word in enumerate(argv):
        if word == "--recipe" and place + 1 < len(argv) or word.startswith("--recipe="):
            recipe = argv.pop(place + 1) if word == "--recipe" else word.partition("=")[2]
            argv.remove(word)
            argv.insert(1 if argv[:1] and argv[0] in SYSTEMS else 0, recipe)
            break
    place = 1 if argv[:1] and argv[0] in SYSTEMS else 0
    if argv[place:] and not argv[place].startswith("-"):
        argv[place] = path_of_recipe(argv[place])
    return argv


def _system_of(argv: list[str]) -> str:
    if argv[0].startswith("-"):
        return "d2s"
    from ..training.flags.recipe import read_recipe

    system = read_recipe(argv[0]).get("system", "d2s")
    if not isinstance(system, str) or system not in SYSTEMS:
        raise ValueError(f"{argv[0]}: system {system!r} is not one of {list(SYSTEMS)}")
    return system
