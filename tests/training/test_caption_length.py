"""One caption length for one model: in training, selection, the saved processor, `vsehub evaluate` and the export."""

import json

import numpy as np
import pytest
import torch
from small_runs import run
from transformers import AutoModel, AutoProcessor, AutoTokenizer

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.evaluate import evaluate_model
from vsehub.hub_cards.conversion import export_onnx

LIMIT = 5


@pytest.fixture(scope="module")
def cut(scenes, tmp_path_factory):
    """A run that reads 5 tokens of a caption, and captions that have more."""
    out = tmp_path_factory.mktemp("cut")
    run(scenes, out, "--max_text_length", str(LIMIT), "--max_steps", "2")
    rows = prepare_rows(DataArguments(data=scenes[1]), "validation", None, need_dense=False)
    return out, [text for captions in rows["captions"] for text in captions]


def test_the_rsum_that_selects_is_the_one_that_evaluate_measures(cut, scenes):
    out, captions = cut
    selected = json.loads((out / "validation.json").read_text())
    for stage, folder in (("pretrain", out / "pretrain" / "best"), ("finetune", out / "hub")):
        measured = evaluate_model(str(folder), DataArguments(data=scenes[1]), "validation")
        for name in ("rsum", "image_to_text_recall@1", "text_to_image_recall@5", "mean_recall"):
            assert measured[name] == selected[stage][f"eval_{name}"], (stage, name)


def test_longer_captions_are_cut_and_it_matters(cut):
    out, captions = cut
    processor = AutoProcessor.from_pretrained(out / "hub")
    assert processor.tokenizer.model_max_length == LIMIT
    lengths = [len(processor.tokenizer(text, truncation=False)["input_ids"]) for text in captions]
    assert sum(length > LIMIT for length in lengths) > len(captions) / 2
    assert processor(text=captions, return_tensors="pt")["input_ids"].shape[1] == LIMIT
    model, long = AutoModel.from_pretrained(out / "hub"), captions[int(np.argmax(lengths))]
    embeds = model.encode_text([long, long + " and more"], processor=processor)
    assert torch.allclose(embeds[0], embeds[1])
    processor.tokenizer.model_max_length = 64
    assert not torch.allclose(model.encode_text([long], processor=processor)[0], embeds[0], atol=1e-4)


def test_the_export_is_cut_at_the_same_number(cut):
    model, processor = AutoModel.from_pretrained(cut[0] / "hub"), AutoProcessor.from_pretrained(cut[0] / "hub")
    assert export_onnx._longest(model, processor.tokenizer) == LIMIT


@pytest.mark.slow
def test_the_exported_graph_reads_as_much(cut, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out, captions = cut
    model, processor = AutoModel.from_pretrained(out / "hub"), AutoProcessor.from_pretrained(out / "hub")
    expected = model.encode_text(captions, processor=processor).numpy()
    export_onnx.export_onnx(model, processor, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["text_cfg"]["context_length"] == LIMIT
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "textual")
    assert tokenizer.model_max_length == LIMIT
    tokens = tokenizer(captions, padding=True, truncation=True, return_tensors="np")
    session = onnxruntime.InferenceSession(tmp_path / "textual" / "model.onnx")
    embeds = session.run(None, {name: tokens[name] for name in ("input_ids", "attention_mask")})[0]
    assert np.abs(embeds - expected).max() <= 1e-4


def test_no_limit_exceeds_what_the_text_tower_reads(scenes, tmp_path):
    run(scenes, tmp_path, "--stages", "baseline", "--max_text_length", "10000", "--max_steps", "2")
    positions = AutoModel.from_pretrained(tmp_path / "hub").config.text_config.max_position_embeddings
    assert AutoProcessor.from_pretrained(tmp_path / "hub").tokenizer.model_max_length == positions
