"""`vsehub recipes`: what each recipe of vsehub trains, on what machine, how long it takes, with what result."""

import difflib
import re
from pathlib import Path

from .flags import add_json, tell
from .parser import Parser

FOLDER = Path(__file__).resolve().parents[1] / "training" / "recipes"
KEYS = ("machine", "time", "expected", "measured")
HEAD = rf"\b({'|'.join(KEYS)})(?: \([^)]*\))?(?:, \w+)?:"  # as `machine:` and `measured (seed 42), validation:`


def parser() -> Parser:
    """The flags."""
    parser = Parser(
        "recipes", "List the recipes that come with vsehub, or show one; `vsehub train NAME` runs it.", "recipes"
    )
    parser.add_place("name", "of one recipe, to print it whole", required=False)
    add_json(parser, "the list")
    return parser


def main(argv: list[str]) -> int:
    """Print the list, or a recipe."""
    args = parser().parse_args(argv)
    paths = {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    if args.name:
        if args.name not in paths:
            raise ValueError(f"no recipe {args.name!r}; there are {', '.join(paths)}")
        text = paths[args.name].read_text(encoding="utf-8")
        tell(args, text, {"name": args.name, "path": str(paths[args.name]), "recipe": text})
        return 0
    recipes = {name: described(path) for name, path in paths.items()}
    blocks = ["\n".join([name, *(f"    {line}" for line in facts.values() if line)]) for name, facts in recipes.items()]
    blocks.append("run one: vsehub train NAME --data ... (`vsehub recipes NAME` prints it)")
    tell(args, "\n\n".join(blocks), recipes)
    return 0


def path_of_recipe(name: str) -> str:
    """The path of a recipe of vsehub by its name; anything else as it is.

    Raises:
        FileNotFoundError: neither a file nor such a name.
    """
    if Path(name).exists() or name.endswith((".yaml", ".yml")):
        return name
    names = sorted(path.stem for path in FOLDER.glob("*.yaml"))
    if name in names:
        return str(FOLDER / f"{name}.yaml")
    near = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
    raise FileNotFoundError(f"{name} is neither a file nor a recipe of vsehub; {hint}")


def described(path: Path) -> dict[str, str]:
    """What the comments at the head of a recipe say: its first sentence, and its machine, time and figures."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    text = " ".join(line or "\n" for line in lines)  # a paragraph a line
    about = " ".join(lines[: lines.index("")] if "" in lines else lines)
    facts = {"about": about.split(". ")[0].rstrip(".")}
    marks = {match[1]: match.start() for match in re.finditer(HEAD, text)}
    for key in KEYS:
        start = marks.get(key, len(text))
        fact = text[start : min((mark for mark in marks.values() if mark > start), default=len(text))]
        facts[key] = fact.partition("\n")[0].strip()
    return facts
