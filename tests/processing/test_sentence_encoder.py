"""Models of sentence-transformers: the vectors of its `encode`; models of one modality and foreign code are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from dual_encoders import SENTENCE
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertModel, BertTokenizer

from vsehub.modeling.towers import load_errors
from vsehub.processing.load_encoder import load_encoder
from vsehub.processing.sentence_encoder import SentenceEncoder, is_sentence_transformer

TEXTS = ["a dog", "x", "the cat sits on a mat and looks at the bird"]


@pytest.fixture
def library(dual_folder):
    return SentenceTransformer(dual_folder(SENTENCE), device="cpu")


@pytest.fixture
def copied(tmp_path, dual_folder):
    return Path(shutil.copytree(dual_folder(SENTENCE), tmp_path / "copy"))


def edited(path: Path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(folder) -> str:
    with pytest.raises((ValueError, OSError)) as info, load_errors(folder):
        load_encoder(folder)
    return str(info.value)


def test_vectors_are_those_of_encode(dual_folder, library, tiny_pictures):
    encoder = load_encoder(dual_folder(SENTENCE))
    assert isinstance(encoder, SentenceEncoder) and (encoder.dimension, encoder.text_limit) == (16, 77)
    for ours, inputs in ((encoder.encode_image, tiny_pictures), (encoder.encode_text, TEXTS)):
        expected = library.encode(inputs, normalize_embeddings=True)
        for size in (1, 4):
            assert np.abs(ours(inputs, size).numpy() - expected).max() < 1e-6


def test_a_default_prompt_and_fewer_dimensions_are_kept(copied, tiny_pictures):
    edited(copied / "config_sentence_transformers.json", prompts={"p": "a photo of "}, default_prompt_name="p")
    library, encoder = SentenceTransformer(str(copied), device="cpu", truncate_dim=8), load_encoder(str(copied))
    short = SentenceEncoder(library)
    for ours, inputs in ((short.encode_image, tiny_pictures), (short.encode_text, TEXTS)):
        expected = library.encode(inputs, normalize_embeddings=True)
        assert expected.shape[1] == 8 and np.abs(ours(inputs).numpy() - expected).max() < 1e-6
    assert np.abs(encoder.encode_text(["dog"]) - encoder.encode_text(["a photo of dog"])).max() > 1e-4  # prompted


def test_long_texts_are_counted(dual_folder, monkeypatch):
    told = []
    monkeypatch.setattr("vsehub.modeling.modeling_dual_encoder.logger.warning", told.append)
    load_encoder(dual_folder(SENTENCE)).encode_text(["a b c d e f g " * 20, "a dog"])
    assert told == ["1 of 2 texts were cut at 77 tokens: the rest of them was not read"]


def test_ours_are_not_taken_for_one(tiny_folder, dual_folder):
    assert (tiny_folder / "modules.json").exists()
    assert not is_sentence_transformer(str(tiny_folder), {})
    assert is_sentence_transformer(dual_folder(SENTENCE), {}) and not is_sentence_transformer(dual_folder("clip"), {})


def test_a_model_of_texts_alone_is_refused(tmp_path, tiny_text_config, tiny_tokenizer):
    BertModel(tiny_text_config).save_pretrained(tmp_path / "bert")
    BertTokenizer(vocab=tiny_tokenizer.get_vocab()).save_pretrained(tmp_path / "bert")
    transformer = Transformer(str(tmp_path / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(32, "mean")], device="cpu")
    model.save(str(tmp_path / "st"))
    said = refusal(str(tmp_path / "st"))
    assert "is a sentence-transformers model of text, not of images and texts: take a dual encoder" in said


@pytest.mark.parametrize("name", ["modules.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("content", [b"{", b'{"a": "caf\xe9"}'])
def test_a_torn_file_of_settings_is_named(copied, name, content):
    (copied / name).write_bytes(content)
    assert f"{name}: not JSON, or half of a file" in refusal(str(copied))


def test_foreign_code_is_refused(copied, tmp_path):
    modules = copied / "modules.json"
    good = modules.read_text()
    modules.write_text(good.replace("sentence_transformers.base.modules.transformer.Transformer", "evil.Module"))
    (copied / "evil.py").write_text(f"open({str(tmp_path / 'witness')!r}, 'w')")
    assert "needs code of its own" in refusal(str(copied))
    modules.write_text(good)
    for changes, words in (
        ({"model_args": {"weights_only": False}}, "sentence_bert_config.json changes how weights are loaded"),
        ({"model_kwargs": {"use_kernels": True}}, "use_kernels"),
        ({"model_args": {"attn_implementation": "somebody/kernel"}}, "asks for code from the Hub"),
    ):
        before = (copied / "sentence_bert_config.json").read_text()
        edited(copied / "sentence_bert_config.json", **changes)
        assert words in refusal(str(copied))
        (copied / "sentence_bert_config.json").write_text(before)
    load_encoder(str(copied))
    assert not (tmp_path / "witness").exists()


def test_without_the_package_its_extra_is_named(copied, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "vsehub\[sentence-transformers\]"'):
        load_encoder(str(copied))
