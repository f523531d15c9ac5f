"""The ladder, the flat folder and the budgets, read off the sources."""

import ast
import statistics
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from vsehub.hub_cards.shipped import CODE

ROOT = Path(__file__).resolve().parents[1]
LADDER = """files configuration modeling processing data search evaluation hub_cards losses training plots serving
demos commands""".split()
SOURCES = [path for folder in LADDER for path in sorted((ROOT / folder).rglob("*.py"))]

# Files without a test file of their own -> the tests that cover them.
COVERED_ELSEWHERE = {
    "processing/processing_d2s_vse.py": "processing/test_processing_dual_encoder.py",
    "processing/processing_pir.py": "processing/test_processing_dual_encoder.py",
    "search/exported_rows.py": "search/test_export.py",
    "search/geoparquet.py": "search/test_export.py",
    "search/index.py": "search/stores/test_table_index.py",
    "search/rows.py": "search/stores/test_table_snapshot.py",
    "search/stores/table.py": "search/stores/test_table_snapshot.py",
    "search/stores/qdrant_points.py": "search/stores/test_qdrant.py",
    "search/stores/qdrant_view.py": "search/stores/test_qdrant.py",
    "search/stores/row_tables.py": "search/stores/test_table_snapshot.py",
    "hub_cards/installed.py": "test_front_door.py",
    "hub_cards/shipped.py": "security/test_publishing.py",
    "hub_cards/metric/app.py": "hub_cards/metric/test_retrieval_recall.py",
    "demos/demo_search.py": "demos/test_clean_process.py",
    "demos/demo_belief.py": "demos/test_clean_process.py",
}


TRAINING = "flags reports processes inputs saving".split()  # its rooms; the files above them import from all


@cache
def imported_files(path: Path) -> set[Path]:
    """The files of vsehub that a file imports from, at its head or in a function."""
    package = ("vsehub", *path.relative_to(ROOT).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*base, *filter(None, [node.module])))
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]  # `from .inputs import pairs`
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        places = [ROOT.joinpath(*name.split(".")[1:]) for name in names if name.startswith("vsehub.")]
        files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
        found |= {file for file in files if file.exists()}
    return found - {path}


def imported_folders(path: Path) -> set[str]:
    """The folders of vsehub that a file imports from, its own excluded."""
    return {file.relative_to(ROOT).parts[0] for file in imported_files(path)} - {path.relative_to(ROOT).parts[0]}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down_the_ladder(path):
    rung = LADDER.index(path.relative_to(ROOT).parts[0])
    for folder in imported_folders(path) & set(LADDER):
        assert LADDER.index(folder) < rung, f"{path} imports from {folder}"


def test_no_files_import_each_other_in_a_circle():
    graph = {path: imported_files(path) for path in SOURCES}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError with the files


def room(path: Path) -> int:
    """Where a file of training/ stands: in one of its rooms, or above them."""
    return TRAINING.index(path.parent.name) if path.parent.name in TRAINING else len(TRAINING)


def test_imports_point_down_the_rooms_of_training():
    assert sorted(TRAINING) == sorted(path.parent.name for path in (ROOT / "training").glob("*/__init__.py"))
    for path in (path for path in SOURCES if path.relative_to(ROOT).parts[0] == "training"):
        for file in imported_files(path):
            assert file.relative_to(ROOT).parts[0] != "training" or room(file) <= room(path), f"{path} imports {file}"


def shipped() -> list[Path]:
    """The files that a model's folder on the Hub may hold a copy of."""
    return [path for path in SOURCES if CODE.fullmatch(path.stem)]


def test_command_lines_are_read_in_commands_alone():
    scripts = {"demo_search.py", "demo_belief.py"}  # run in a process that cannot import vsehub
    for path in SOURCES:
        if path.relative_to(ROOT).parts[0] == "commands" or path.name.startswith("run_") or path.name in scripts:
            continue
        tree = ast.parse(path.read_text())
        assert all(getattr(node, "name", "") != "main" for node in tree.body), f"{path}: a verb belongs to commands/"
        calls = {node.func.attr for node in ast.walk(tree) if isinstance(node, ast.Call) and hasattr(node.func, "attr")}
        assert "add_argument" not in calls, f"{path} reads a command line"


def test_names_of_shipped_files_are_unique_because_the_hub_folder_is_flat():
    names = [path.name for path in shipped()]
    assert sorted(names) == sorted(set(names))


def test_shipped_files_import_no_file_that_stays_at_home():
    names = {path.stem for path in shipped()}
    for path in shipped():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert (node.module or "").split(".")[-1] in names, f"{path} imports {node.module}"


def test_files_and_functions_keep_their_budgets():
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES if path.name != "__init__.py"}
    assert max(lengths.values()) <= 500, max(lengths, key=lengths.get)
    assert statistics.median(lengths.values()) <= 130
    long = [path for path in (ROOT / "tests").rglob("*.py") if len(path.read_text().splitlines()) > 500]
    assert long == [], "tests are read, too"
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_every_file_has_a_test_file_of_its_name():
    tests = ROOT / "tests"
    files = {str(path.relative_to(ROOT)) for path in SOURCES if path.name != "__init__.py"}
    mirrored = {name for name in files if (tests / Path(name).with_name(f"test_{Path(name).name}")).exists()}
    assert sorted(files - mirrored - set(COVERED_ELSEWHERE)) == []
    assert sorted(set(COVERED_ELSEWHERE) - (files - mirrored)) == [], "no longer needed"
    assert all((tests / name).exists() for name in COVERED_ELSEWHERE.values())


def test_shipped_files_import_only_what_a_stranger_has():
    allowed = {"torch", "transformers", "numpy"} | set(__import__("sys").stdlib_module_names)
    for path in shipped():
        for node in ast.parse(path.read_text()).body:  # module level; functions may import Pillow
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for module in modules:
                assert module.split(".")[0] in allowed, f"{path} imports {module}"


MODULES = """socket ssl urllib http ftplib smtplib requests httpx aiohttp huggingface_hub subprocess
multiprocessing ctypes importlib runpy pickle marshal shelve shutil tempfile sys""".split()
BUILTINS = "exec eval compile open __import__".split()
METHODS = """system popen spawn write write_text write_bytes unlink rename mkdir rmdir urlopen urlretrieve
load_state_dict_from_url""".split()


def violations(source: str) -> list[str]:
    """What a file does that code from the Hub must not: network, processes, dynamic execution, writing files."""
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
        found += [module for module in modules if module.split(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom):
            found += [alias.name for alias in node.names if alias.name in METHODS]
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] * (node.func.id in BUILTINS)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
            found += [node.func.attr] * (node.func.attr in METHODS or (owner, node.func.attr) == ("torch", "load"))
    return found


@pytest.mark.parametrize("path", shipped(), ids=lambda p: p.name)
def test_shipped_code_does_no_network_process_dynamic_execution_or_writing(path):
    assert not violations(path.read_text())


@pytest.mark.parametrize(
    "source",
    [
        "import subprocess", "from urllib.request import urlopen", "exec('1')", "eval('1')", "open('x', 'w')",
        "import torch\ntorch.load('x')", "__import__('os')", "import os\nos.system('x')",
        "from os import system", "Path('x').write_text('y')",
        "import importlib\nimportlib.import_module('os')", "def f():\n    import socket",
    ],
)  # fmt: skip
def test_the_rule_sees_each_kind(source):
    assert violations(source)
