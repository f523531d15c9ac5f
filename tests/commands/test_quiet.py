"""`--quiet`: what is silenced, and that it is so for one verb alone."""

import logging
import os
import warnings

import datasets
import huggingface_hub
import pytest
import transformers
from transformers import BertConfig, BertModel

from vsehub.commands import compare
from vsehub.commands.quiet import ENVIRONMENT, REPORTERS, calm, hush, is_worth_saying, unhush


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


def bars():
    libraries = transformers.utils.logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    filters = [logging.getLogger(name).filters[:] for name in REPORTERS]
    return libraries, huggingface_hub.utils.are_progress_bars_disabled(), filters


def test_bars_of_loading_are_hidden_and_downloads_are_not(monkeypatch):
    monkeypatch.setattr(transformers.utils.logging, "_tqdm_active", True)
    before = bars()
    calm(verbose=True)
    assert bars() == before
    calm()
    try:
        calm()  # once more changes nothing
        assert bars()[0] == (False, True) and bars()[1] == before[1]
        assert is_worth_saying in bars()[2][0]
    finally:
        unhush()
    assert bars() == before


def test_a_warning_of_cudnn_is_hidden_and_others_are_not():
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as said:
        calm()
        try:
            warnings.warn("RNN module weights are not part of single contiguous chunk of memory. ...", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
        finally:
            unhush()
    assert [str(warning.message) for warning in said] == ["something else"]
    assert list(warnings.filters) == before


@pytest.fixture
def saved(tmp_path):
    """A function that saves a tower whose file has a pooler that nobody reads, without some of its weights."""

    def save(*without):
        config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)
        model = BertModel(config)
        weights = {name: value for name, value in model.state_dict().items() if name not in without}
        model.save_pretrained(tmp_path, state_dict=weights)
        return tmp_path

    return save


@pytest.mark.parametrize("missing", [(), ("embeddings.word_embeddings.weight",)])
def test_weights_that_are_unused_are_not_told_and_missing_ones_are(saved, capsys, caplog, missing):
    folder = saved(*missing)
    capsys.readouterr()
    calm()
    try:
        BertModel.from_pretrained(folder, add_pooling_layer=False)
    finally:
        unhush()
    assert ("LOAD REPORT" in caplog.text) == bool(missing) == ("word_embeddings" in caplog.text)
    assert "Loading weights" not in capsys.readouterr().err
    BertModel.from_pretrained(folder, add_pooling_layer=False)
    assert "pooler.dense.weight" in caplog.text and "Loading weights" in capsys.readouterr().err  # what was hidden
