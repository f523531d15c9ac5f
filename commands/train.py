"""`vsehub train [d2s|pir|rebalanced] RECIPE.yaml|--flags`: the training scripts under one verb."""

import importlib

from ..training.recipe import read_recipe

SYSTEMS = {"d2s": "run_d2s", "pir": "run_pir", "rebalanced": "run_rebalanced"}
USAGE = "usage: vsehub train [{systems}] [RECIPE.yaml] [--flag value ...]"


def main(argv: list[str]) -> int:
    """Choose the script by name, by the recipe's `system`, or D2S-VSE; hand over the rest.

    Raises:
        ValueError: a recipe of a system that does not exist.
    """
    if not argv:
        print(USAGE.format(systems="|".join(SYSTEMS)) + "\n`vsehub train --help` lists the flags.")
        return 2
    system, rest = (argv[0], argv[1:]) if argv[0] in SYSTEMS else (_system_of(argv), argv)
    return importlib.import_module(f"vsehub.training.{SYSTEMS[system]}").main(rest)


def _system_of(argv: list[str]) -> str:
    if argv[0].startswith("-"):
        return "d2s"
    system = read_recipe(argv[0]).get("system", "d2s")
    if not isinstance(system, str) or system not in SYSTEMS:
        raise ValueError(f"{argv[0]}: system {system!r} is not one of {list(SYSTEMS)}")
    return system
