"""The commands and the Python of the documents run, on tiny models and data under the names that the documents use."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from small_runs import PIR_SMALL, SMALL
from transformers import BertModel, ViTModel
from workshop import build

from vsehub.__main__ import main
from vsehub.commands import flags
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training import run_d2s, run_pir

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(bash|python)\n(.*?)^ *```", re.M | re.S)
PYTHON_PAGES = ("README.md", "docs/geotiff.md")  # whose Python runs; that of other pages is in parts, and test_docs.py
# checks what it imports
NOT_OURS = re.compile(r"(pip|make|python|accelerate|torchrun|srun|curl)\b|#|FIRST=|export ")  # checked by test_docs.py
READ_ONLY = {  # commands that are only parsed here -> why
    r"vsehub caption ": "needs a model that writes, or a server (tests/data/captioning)",
    r"vsehub convert ": "needs an official checkpoint (tests/hub_cards/conversion)",
    r"vsehub evaluate .*(coco|cxc)": "needs COCO (tests/evaluation)",
    r"vsehub compare runs/": "needs what such an evaluation writes",
    r"vsehub search pairs.index": "needs a dataset with dates (tests/commands/test_search.py)",
    r"vsehub search .*--like": "an absolute path is the id (the same)",
    r"vsehub serve": "does not end (tests/serving)",
}
SLOW = re.compile(r"vsehub (train|teachers|plot|export .*onnx)\b")
ADDED = {"push": ["--dry_run"]}  # what keeps a command at home


class ParsedError(Exception):
    """The command line was read, and its work would begin."""


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_folder, pir_folder, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """The workshop that each page gets a copy of."""
    towers = tmp_path_factory.mktemp("vision"), tmp_path_factory.mktemp("text")
    ViTModel(tiny_vision_config).save_pretrained(towers[0])
    square_image_processor(32).save_pretrained(towers[0])
    BertModel(tiny_text_config).save_pretrained(towers[1])
    tiny_tokenizer.save_pretrained(towers[1])
    return build(tmp_path_factory.mktemp("workshop"), tiny_folder, pir_folder, towers)


@pytest.fixture
def workshop(original, tmp_path, monkeypatch):
    """A fresh copy, as the working directory."""
    root = tmp_path / "work"
    shutil.copytree(original, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("DATA", "org")
    return root


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The (language, text) of the code blocks of a page, in order."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def commands_of(text: str) -> list[list[str]]:
    """The words of each command of `vsehub` in a block, without comments."""
    commands = []
    for line in map(str.strip, re.sub(r"\\\n\s*", " ", text).splitlines()):
        if line and not NOT_OURS.match(line):
            words = shlex.split(line, comments=True)
            starts = [0, *(place + 1 for place, word in enumerate(words) if word == "&&")]
            ends = [*(start - 1 for start in starts[1:]), len(words)]
            commands += [words[start:end] for start, end in zip(starts, ends)]
    return commands


def small(words: list[str]) -> list[str]:
    """The same command with what makes it quick."""
    if words[0] == "train":
        sizes = PIR_SMALL if words[1].startswith("pir") else SMALL
        chunk = ["--chunk_size", "4"] if "--chunk_size" in words else []
        return [*words, *sizes, "--bf16", "False", "--cache_views", "1", *chunk]
    return [*words, *ADDED.get(words[0], [])]


def parse(words: list[str], monkeypatch):
    """Read a command line as its verb does, and stop before the work."""
    read = flags.Parser.parse_args

    def read_and_stop(parser, *args, **kwargs):
        read(parser, *args, **kwargs)
        raise ParsedError

    def stop(stages):
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(flags.Parser, "parse_args", read_and_stop)
        patch.setattr(run_d2s, "preflight", stop)
        patch.setattr(run_pir, "preflight", stop)
        with pytest.raises(ParsedError):
            main(words)


def run_page(page: str, monkeypatch, slow: bool):
    """Run a page from top to bottom; commands of `SLOW` only where they are asked for, else they are parsed."""
    names: dict = {}
    for language, text in blocks_of(page):
        if language == "python" and page in PYTHON_PAGES:
            exec(compile(text, page, "exec"), names)
        for words in commands_of(text) if language == "bash" else []:
            line = shlex.join(words)
            assert words[0] == "vsehub", f"{page}: {line}"
            if any(re.match(pattern, line) for pattern in READ_ONLY) or (SLOW.match(line) and not slow):
                parse(words[1:], monkeypatch)
            else:
                assert main(small(words[1:])) == 0, f"{page}: {line}"


@pytest.mark.parametrize("page", [page for page in PAGES if any(language == "bash" for language, _ in blocks_of(page))])
def test_a_page_runs(page, workshop, monkeypatch):
    pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    run_page(page, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/structure.md", "docs/hub.md"])
def test_a_page_runs_with_its_trainings(page, workshop, monkeypatch):
    run_page(page, monkeypatch, slow=True)


def test_the_notebook_runs(workshop):
    cells = json.loads((ROOT / "docs" / "photos.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(names["hits"]) == 3 and names["vectors"].ndim == 1
