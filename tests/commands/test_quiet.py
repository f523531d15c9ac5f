"""`--quiet`: what is silenced, and that it is so for one verb alone."""

import logging
import os
import warnings

import datasets
import transformers

from vsehub.commands import compare
from vsehub.commands.quiet import ENVIRONMENT, hush, unhush


def state():
    names = {name: os.environ.get(name) for name in ENVIRONMENT}
    libraries = [transformers.utils.logging.get_verbosity(), datasets.utils.logging.get_verbosity()]
    return names, libraries, logging.getLogger("vsehub").level, list(warnings.filters)


def test_remarks_and_warnings_are_silenced_and_come_back(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    before = state()
    hush()
    try:
        warnings.warn("old", stacklevel=1)
        logging.getLogger("vsehub.data").warning("left out")
        transformers.utils.logging.get_logger("transformers.models").warning("not initialised")
        assert os.environ["TQDM_DISABLE"] == "1" and os.environ["TRANSFORMERS_VERBOSITY"] == "error"
        hush()  # once more changes nothing
    finally:
        unhush()
    assert capsys.readouterr().err == "" and state() == before
    unhush()
    assert state() == before


def test_it_ends_with_the_verb_however_that_ends(vsehub, monkeypatch):
    before = state()

    def fail(argv):
        hush()
        raise ValueError("bad input")

    monkeypatch.setattr(compare, "main", fail)
    assert "bad input" in vsehub("compare", "--quiet", status=2)
    assert state() == before
