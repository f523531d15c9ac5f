"""The values of a manifest: of the right types, or refused; models in words."""

import json

import numpy as np
import pytest

from vsehub.search.index_manifest import called, check_noted, check_types, kept_numbers
from vsehub.search.index_store import IndexFolderError
from vsehub.search.vector_index import VectorIndex

GOOD = {"model": None, "cutoff": None, "sources": {}, "kind": "flat", "rows": 0, "segments": []}


@pytest.mark.parametrize("more", [{}, {"vectors": "int8"}, {"cutoff": {"text": 0.2}}, {"segments": [["a", "b"]]}])
def test_good_values_pass(more):
    check_types(GOOD | more)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"vectors": "int4"}, ValueError),
        ({"kind": 3}, TypeError),
        ({"cutoff": {"text": float("nan")}}, ValueError),
        ({"sources": {"a": {"data": 1}}}, TypeError),
        ({"segments": [["a"]]}, TypeError),
        ({"model": {"id": "m", "digest": "d", "width": True}}, TypeError),
    ],
)
def test_wrong_values_are_refused(more, error):
    with pytest.raises(error):
        check_types(GOOD | more)


@pytest.mark.parametrize("facts", [{}, {"cutoff": {"text": 0.3}}, {"cutoff": None, "unfinished": True, "kind": "auto"}])
def test_facts_that_an_index_opens_with_are_noted(facts):
    check_noted(facts)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"cutoff": 0.3}, r'would not open again: cutoff is .* such as \{"text": 0.3\}'),
        ({"cutoff": {"text": float("nan")}}, "not finite"),
        ({"sources": []}, "would not open again: sources are dictionaries"),
        ({"kind": "tree"}, "tree"),
        ({"dimension": 3}, "notes cutoff, sources, kind, unfinished, and not dimension"),
    ],
)
def test_other_facts_leave_the_index_as_it_was(facts, said, tmp_path):
    index = VectorIndex.create(tmp_path)
    with pytest.raises(ValueError, match=said):
        index.note(**facts)
    assert VectorIndex.open(tmp_path).generation == index.generation


def test_models_are_told_apart_in_words():
    model = {"id": "org/model", "revision": "0123456789abcdef", "digest": "a" * 64}
    assert called(model) == "org/model at 0123456789ab (weights aaaaaaaaaaaa)"
    assert kept_numbers(model) == "all numbers" and kept_numbers(model | {"width": 8}) == "the first 8 numbers"


@pytest.mark.parametrize(
    "changes",
    [
        {"model": ...},
        {"dimension": 7},
        {"cutoff": 3},
        {"sources": []},
        {"segments": []},
        {"files": []},
        {"rows": 4},
        {"graph": "no.faiss"},
    ],
)
def test_a_manifest_that_lies_is_refused_with_the_remedy(tmp_path, changes):
    pytest.importorskip("faiss")
    index = VectorIndex.create(tmp_path / "index")
    index.add(np.eye(3), [{"id": name} for name in "abc"])
    path = tmp_path / "index" / "manifest.json"
    manifest = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in manifest.items() if value is not ...}))
    with pytest.raises(IndexFolderError, match="index again"):
        VectorIndex.open(tmp_path / "index")
