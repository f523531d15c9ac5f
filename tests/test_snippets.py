"""The commands and the Python of the documents run, on tiny models and data under the names that the documents use."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from photos import paint
from served import running
from small_runs import PIR_SMALL, SMALL
from transformers import BertModel, MobileNetV2Config, MobileNetV2Model, ViTModel
from workshop import build

from vsehub.__main__ import main
from vsehub.commands.parser import Parser
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.training import run_d2s, run_pir

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(bash|python)\n(.*?)^ *```", re.M | re.S)
# Whose Python runs, and how many blocks of it. Other blocks are parts of a program: test_docs.py checks their imports.
PYTHON_BLOCKS = {"README.md": 1, "docs/geotiff.md": 2, "docs/search.md": 1, "docs/training.md": 1}
NOT_OURS = re.compile(r"(pip|make|python|accelerate|torchrun|srun|curl)\b|#|FIRST=|export ")  # checked by test_docs.py
READ_ONLY = {  # commands that are only parsed here -> why
    r"vsehub caption ": "needs a model that writes, or a server (tests/data/captioning)",
    r"vsehub convert ": "needs an official checkpoint (tests/hub_cards/conversion)",
    r"vsehub evaluate .*(coco|cxc)": "needs COCO (tests/evaluation)",
    r"vsehub compare runs/": "needs what such an evaluation writes",
    r"vsehub search pairs.index": "needs a dataset with dates (tests/commands/test_search.py)",
    r"vsehub search .*--like": "an absolute path is the id (the same)",
    r"vsehub .*qdrant://": "needs a server (tests/search/stores)",
    r"vsehub serve": "does not end (tests/serving)",
}
SLOW = re.compile(r"vsehub (train|teachers|plot|export .*onnx)\b|.*runs/nested")  # or need what these write
ADDED = {"push": ["--dry_run"]}  # what keeps a command at home


class ParsedError(Exception):
    """The command line was read, and its work would begin."""


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_folder, pir_folder, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """The workshop that each page gets a copy of."""
    towers = tuple(tmp_path_factory.mktemp(name) for name in ("vision", "mobile", "text"))
    ViTModel(tiny_vision_config).save_pretrained(towers[0])
    MobileNetV2Model(MobileNetV2Config(image_size=32, depth_multiplier=0.1, min_depth=4)).save_pretrained(towers[1])
    for folder in towers[:2]:
        square_image_processor(32).save_pretrained(folder)
    BertModel(tiny_text_config).save_pretrained(towers[2])
    tiny_tokenizer.save_pretrained(towers[2])
    return build(tmp_path_factory.mktemp("workshop"), tiny_folder, pir_folder, towers)


@pytest.fixture
def workshop(original, tmp_path, monkeypatch):
    """A fresh copy, as the working directory."""
    root = tmp_path / "work"
    shutil.copytree(original, root)
    monkeypatch.chdir(root)
    for name, folder in {"DATA": "org", "BACKBONES": "backbones", "MINILM": "bert-base-uncased"}.items():
        monkeypatch.setenv(name, folder)
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
        wide = ["--projection_dim", "256"] if "--matryoshka" in words or "runs/plain" in words else []
        return [*words, *sizes, "--bf16", "False", "--cache_views", "1", *chunk, *wide]
    return [*words, *ADDED.get(words[0], [])]


def parse(words: list[str], monkeypatch):
    """Read a command line as its verb does, and stop before the work."""
    read = Parser.parse_args

    def read_and_stop(parser, *args, **kwargs):
        read(parser, *args, **kwargs)
        raise ParsedError

    def stop(stages):
        raise ParsedError

    with monkeypatch.context() as patch:
        patch.setattr(Parser, "parse_args", read_and_stop)
        patch.setattr(run_d2s, "preflight", stop)
        patch.setattr(run_pir, "preflight", stop)
        with pytest.raises(ParsedError):
            main(words)


def run_page(page: str, monkeypatch, slow: bool):
    """Run a page from top to bottom; commands of `SLOW` only where they are asked for, else they are parsed."""
    names: dict = {}
    left = PYTHON_BLOCKS.get(page, 0)
    for language, text in blocks_of(page):
        if language == "python" and left:
            exec(compile(text, page, "exec"), names)
            left -= 1
        for words in commands_of(text) if language == "bash" else []:
            line = shlex.join(words)
            assert words[0] == "vsehub", f"{page}: {line}"
            if any(re.match(pattern, line) for pattern in READ_ONLY) or (SLOW.match(line) and not slow):
                parse(small(words[1:]), monkeypatch)
            else:
                assert main(small(words[1:])) == 0, f"{page}: {line}"
    assert not left, f"{page}: {left} blocks of Python fewer than are listed"


@pytest.mark.parametrize("page", [page for page in PAGES if any(language == "bash" for language, _ in blocks_of(page))])
def test_a_page_runs(page, workshop, monkeypatch):
    pytest.importorskip("rasterio", reason="the extra `geo` is not installed")
    run_page(page, monkeypatch, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/training.md", "docs/structure.md", "docs/hub.md"])
def test_a_page_runs_with_its_trainings(page, workshop, monkeypatch):
    run_page(page, monkeypatch, slow=True)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("bash")), reason="curl is not installed")
def test_the_requests_of_the_page_of_the_server_are_answered(workshop):
    paint(workshop / "boat.jpg")
    Path("token.txt").write_text("a-token-of-this-test")
    assert main("index photos --model openai/clip-vit-base-patch32 --out photos.index --quiet".split()) == 0
    requests = re.findall(r"^ *(curl (?:.*\\\n)*.*)$", (ROOT / "docs" / "serve.md").read_text(encoding="utf-8"), re.M)
    assert len(requests) == 3
    with running("photos.index") as address:
        for request in requests:
            line = re.sub(r"http://[\w.]+:8000", address, request)
            answer = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60)
            told = json.loads(answer.stdout)
            assert told.get("hits") or len(told["data"]) == 2, f"{request}: {told}"


def test_the_notebook_runs(workshop):
    cells = json.loads((ROOT / "docs" / "photos.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    assert len(names["hits"]) == 3 and names["vectors"].ndim == 1
