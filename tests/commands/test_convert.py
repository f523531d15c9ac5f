"""`vsehub convert SYSTEM`: which converter is chosen, and help of its own."""

import pytest

from vsehub.commands import convert_d2s_vse, convert_pir


def test_help_names_the_systems(vsehub):
    assert "usage: vsehub convert {d2s-vse,pir} CKPT OUT" in vsehub("convert", "--help")


@pytest.mark.parametrize(
    ("words", "converter"), [(["d2s-vse"], convert_d2s_vse), (["d2s_vse"], convert_d2s_vse), (["pir"], convert_pir)]
)
def test_a_system_is_named_first(words, converter, vsehub, monkeypatch):
    seen = []
    monkeypatch.setattr(converter, "main", lambda rest: seen.append(rest) or 0)
    vsehub("convert", *words, "a.pth", "out")
    assert seen == [["a.pth", "out"]]


@pytest.mark.parametrize(
    ("words", "said"), [([], "say which system"), (["pickle"], "not 'pickle'"), (["--x"], "say which")]
)
def test_another_system_is_one_line(words, said, vsehub):
    assert said in vsehub("convert", *words, status=2)
