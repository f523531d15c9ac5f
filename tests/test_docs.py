"""The documents name what exists: links, files, flags of commands, and what their Python imports."""

import ast
import contextlib
import importlib
import importlib.util
import io
import re
import shlex
from dataclasses import fields
from functools import lru_cache
from pathlib import Path

import pytest
from package_files import package_files

from vsehub.__main__ import VERBS, main
from vsehub.commands.flags import DTYPES
from vsehub.commands.parser import Parser

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests" / "goldens").glob("*.md")]
DOCUMENTS.append(ROOT / "benchmarks" / "README.md")
PRESENT = [page for page in DOCUMENTS if page.name != "CHANGELOG.md"]  # which also names what is gone
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE = re.compile(r"(?<![\w./~$-])(?:[\w.-]+/)*[\w-]+\.(?:py|yaml|md|svg)\b(?![\w*])")
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir()}
EXAMPLES = re.compile(
    r"foo|count\.py|(?:^|/)recipe\.yaml|RECIPE\.yaml"
)  # files that CONTRIBUTING's examples would add, and one of a user
SUBCOMMANDS = {
    "index": {"export": "index_export", "calibrate": "index_calibrate", "remove": "index_remove"},
    "convert": {"pir": "convert_pir", "d2s-vse": "convert_d2s_vse"},
}
FLAG = re.compile(r"(?<![\w-])--([a-z][\w.-]*)")
ELSEWHERE = {
    "use_decoder",
    "pdb",
    "fix",
    "version",
    "help_all",
    "accum_freq",
    *"nproc_per_node nnodes num_processes rdzv_backend rdzv_endpoint cpu nodes ntasks_per_node gpus_per_node".split(),
}  # of the official code, open_clip, pytest, ruff, launchers and `vsehub` itself


def anchors(text: str) -> set[str]:
    """The anchors that a Markdown page has: its headings in lower case, with dashes."""
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code_of(text: str) -> list[str]:
    """The lines of code blocks (joined where they end in a backslash) and the code within sentences."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.M | re.S)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", " ", block).splitlines()]
    sentences = re.sub(r"^ *```\w*\n.*?^ *```", "", text, flags=re.M | re.S)
    return lines + [re.sub(r"\s+", " ", code) for code in re.findall(r"`([^`]+)`", sentences)]


def commands_of(text: str) -> list[tuple[str, str]]:
    """What follows `vsehub` in a document: the command's file in `commands/`, and the words after its name."""
    commands = []
    for code in code_of(text):
        for command in re.findall(r"(?:^|&& |launch -m )vsehub[ .](?:commands\.)?([a-z].*?)(?= && | # |  #|$)", code):
            verb, *words = command.split()
            if verb not in VERBS:
                continue
            inner = SUBCOMMANDS.get(verb, {}).get(words[0] if words else "")
            commands.append((inner or verb.replace("-", "_"), command))
    return commands


@lru_cache
def flags_of_training() -> frozenset[str]:
    """The flags of `vsehub train`: ours, and those of transformers."""
    from transformers import TrainingArguments

    from vsehub.training.flags.own_arguments import OURS

    ours = {item.name for kinds in OURS.values() for kind in kinds for item in fields(kind)}
    return frozenset(ours | {item.name for item in fields(TrainingArguments)} | {"stages", "quiet", "recipe", "help"})


@lru_cache
def help_of(command: str) -> str:
    """What a command prints for `--help`."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        importlib.import_module(f"vsehub.commands.{command}").main(["--help"])
    return shown.getvalue()


def flags_of(command: str) -> frozenset[str]:
    """The flags of a command, with underscores."""
    return flags_of_training() if command == "train" else frozenset(FLAG.findall(help_of(command)))


def choices_of(command: str) -> dict[str, list[str]]:
    """The values that a command lists for a flag, by flag."""
    listed = re.findall(r"--(\w+)\s+\{([\w,]+)\}", help_of(command))
    return {flag: [*values.split(","), *DTYPES] if flag == "dtype" else values.split(",") for flag, values in listed}


@lru_cache
def all_flags() -> frozenset[str]:
    """The flags of all commands and benchmarks."""
    inner = [name for names in SUBCOMMANDS.values() for name in names.values()]
    flags = set(ELSEWHERE).union(*(flags_of(name) for name in [*(verb.replace("-", "_") for verb in VERBS), *inner]))
    for script in (ROOT / "benchmarks").rglob("*.py"):
        flags.update(name.replace("-", "_") for name in FLAG.findall(script.read_text(encoding="utf-8")))
    return frozenset(flags)


def plain(flag: str) -> str:
    """A flag's name with underscores, without the stage before it: `pretrain.max_steps` is `max_steps`."""
    return flag.replace("-", "_").rpartition(".")[2] or flag


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_repository_lead_to_a_file_and_a_heading(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), f"{page.name}: {link}"


@lru_cache
def names_of_files() -> frozenset[str]:
    """The names of all files and folders of the project; environments, runs and caches are not walked through."""
    below = (path for folder in FOLDERS - {"runs", ".venv", ".git", ".mypy"} for path in (ROOT / folder).rglob("*"))
    return frozenset(path.name for path in (*ROOT.iterdir(), *below))


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_exist(page):
    names = names_of_files()
    for file in set(FILE.findall(page.read_text(encoding="utf-8"))):
        first, inner, _ = file.partition("/")
        if EXAMPLES.search(file) or (inner and first not in FOLDERS | {"..", "."}):
            continue
        exists = (ROOT / file).exists() or (page.parent / file).exists() if inner else file in names
        assert exists, f"{page.name}: {file}"


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_flags_that_a_document_names_exist(page):
    text = page.read_text(encoding="utf-8")
    for command, words in commands_of(text):
        for flag in FLAG.findall(words):
            assert plain(flag) in flags_of(command), f"{page.name}: vsehub {words}: no flag --{flag}"
        for flag, value in re.findall(r"--(\w+) (\w+)", words):
            assert value in choices_of(command).get(flag, [value]), f"{page.name}: vsehub {words}: --{flag} {value}"
    for code in code_of(text):
        for flag in FLAG.findall(code):
            assert plain(flag) in all_flags(), f"{page.name}: {code}: no flag --{flag}"


def words_of_commands(line: str) -> list[list[str]]:
    """The words of each command of a line of the shell, without its comment."""
    commands: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True) if "$(" not in line else []:
        commands.append([]) if word == "&&" else commands[-1].append(word)
    return commands


class ReadError(Exception):
    """A command line was read whole, and the work would begin."""


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_document_are_read_by_their_parser(page, monkeypatch):
    read = Parser.parse_args

    def read_and_stop(parser, *args, **kwargs):
        read(parser, *args, **kwargs)
        raise ReadError

    monkeypatch.setattr(Parser, "parse_args", read_and_stop)
    for block in re.findall(r"^ *```bash\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            for words in words_of_commands(line):
                if words[:1] == ["vsehub"] and words[1] != "train":  # which has a parser of its own
                    with pytest.raises(ReadError):
                        main(words[1:])


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_python_of_a_document_imports_from_vsehub_exists(page):
    for line in re.findall(r"^\s*from (vsehub[\w.]* import [\w, ]+)$", page.read_text(encoding="utf-8"), re.M):
        module, _, names = line.partition(" import ")
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{page.name}: from {line}"


@pytest.mark.parametrize("page", PRESENT, ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_that_a_document_chooses_exist(page):
    for code in code_of(page.read_text(encoding="utf-8")):
        for file, word in re.findall(r"(tests/[\w/]+\.py)\S* -k (\w+)", code):
            assert re.search(rf"def test_\w*{word}", (ROOT / file).read_text(encoding="utf-8")), f"{page.name}: {code}"


@lru_cache
def literals() -> str:
    """The texts of the code, one a line; what an f-string puts in is `...`."""
    texts = []
    for path in package_files(ROOT):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "..." for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def test_messages_of_the_page_of_errors_are_those_of_the_code():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", page, re.M)
    assert len(messages) > 30
    for message in messages:
        for part in filter(None, (part.strip(" ,:") for part in message.split("..."))):
            assert part in literals(), f"{message}: {part!r} is not in the code"


def test_the_picture_of_the_results_is_drawn_from_the_table():
    spec = importlib.util.spec_from_file_location("plot_results", ROOT / "benchmarks" / "plot_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.read_rows((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(rows) >= 5 and all(0 < value < 600 and 0 <= spread < 60 for *_, value, spread in rows)
    table = "<!-- RESULTS -->\n| a | b | c | d |\n|---|---|---|---|\n"
    table += "| x; y | d 1 | c | **10.5 +- 2** |\n| z | the same | c | 3, 5 |\n| w | e | c | 7 (mR 2) |\n"
    table += "<!-- END OF RESULTS -->"
    assert module.read_rows(table) == [("x", "d 1", 10.5, 2.0), ("z", "d 1", 4.0, 1.0), ("w", "e", 7.0, 0.0)]
    assert max(path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()) < 150_000


def test_the_navigation_of_the_site_names_pages_that_exist():
    import yaml

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = {page for group in site["nav"] for pages in group.values() for page in pages}
    made = {"index.md", "notebook.md", "changelog.md", "contributing.md"}  # by docs/hooks.py
    assert made <= listed <= made | {path.name for path in (ROOT / "docs").glob("*.md")}


def test_every_script_that_measures_is_in_the_list_of_its_folder():
    folder = ROOT / "benchmarks"
    listed = set(re.findall(r"`([\w/]+\.py)`", (folder / "README.md").read_text(encoding="utf-8")))
    assert listed == {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
