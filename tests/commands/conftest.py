"""What the tests of several verbs share."""

import json

import pytest
from datasets import Dataset
from photos import jpeg

from vsehub.commands import flags
from vsehub.commands.parser import Parser


@pytest.fixture
def vsehub_json(vsehub):
    """The same with `--json` at the end: what was printed, parsed."""
    return lambda *words: json.loads(vsehub(*words, "--json"))


@pytest.fixture
def calls(monkeypatch):
    """A function: name of a library's function, what it returns -> a list of the calls that it then gets."""

    def record(name: str, result):
        made = []
        monkeypatch.setattr(name, lambda *args, **kwargs: made.append((args, kwargs)) or result)
        return made

    return record


@pytest.fixture
def pairs(tmp_path):
    """A parquet file of four pictures with two captions each."""
    rows = []
    for number, word in enumerate(["dog", "cat", "boat", "bridge"]):
        picture = {"bytes": jpeg(number), "path": None}
        rows.append({"image": picture, "captions": [f"a {word}", f"the {word}"], "image_id": str(number)})
    Dataset.from_list(rows).to_parquet(str(tmp_path / "pairs.parquet"))
    return tmp_path / "pairs.parquet"


@pytest.fixture
def parser():
    """The parser of a verb that there is not."""
    made = Parser("fly", "Fly somewhere.", "fly model.zip --wing_span 3")
    made.add_place("model", "what flies")
    made.add_place("out", "where to", required=False)
    made.add("--wing_span", type=flags.positive_int, default=2)
    made.add("--pair", nargs=2)
    flags.add_json(made, "the flight")
    return made
