"""The values of a manifest: of the right types, or refused; models in words."""

import pytest

from vsehub.search.index_manifest import called, check_types, kept_numbers

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


def test_models_are_told_apart_in_words():
    model = {"id": "org/model", "revision": "0123456789abcdef", "digest": "a" * 64}
    assert called(model) == "org/model at 0123456789ab (weights aaaaaaaaaaaa)"
    assert kept_numbers(model) == "all numbers" and kept_numbers(model | {"width": 8}) == "the first 8 numbers"
