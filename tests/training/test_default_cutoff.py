"""The default cut-off of a model: against a loop, at the end of a stage, and not in checkpoints of the next stage."""

import json

import torch
from small_runs import run
from transformers import AutoModel

from vsehub.data.arguments import DataArguments
from vsehub.data.rows import prepare_rows
from vsehub.evaluation.embed import Embeds
from vsehub.search import cutoff
from vsehub.search.off_topic import off_topic_queries
from vsehub.training.default_cutoff import measured_cutoff

MEASURED = ("image_embeds_mean", "text_embeds_mean", "text_cutoff")


def test_it_equals_its_loop(tiny_model, tiny_processor):
    captions = [f"a dog {number}" for number in range(40)]
    texts = tiny_model.encode_text(captions, processor=tiny_processor)
    noise = torch.nn.functional.normalize(torch.randn(25, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    images = torch.cat([texts[::2][:5], noise])  # five pictures are right
    owners = torch.arange(40) % 30
    facts = measured_cutoff(tiny_model, tiny_processor, captions, Embeds(images, texts, owners))
    queries = off_topic_queries(captions)
    vectors = tiny_model.encode_text(queries, processor=tiny_processor)
    noise = [[float(vector @ image) for image in images] for vector in vectors]
    own = [float(texts[place] @ images[owners[place]]) for place in range(40)]
    assert facts == cutoff.default_cutoff(own, noise)
    assert (facts["images"], facts["captions"], facts["queries"]) == (30, 40, len(queries))
    assert measured_cutoff(tiny_model, tiny_processor, ["ein Hund"] * 40, Embeds(images, texts, owners)) is None


def test_a_stage_measures_it_on_its_validation_pictures(scenes, tmp_path, monkeypatch):
    monkeypatch.setattr(cutoff, "LEAST_QUERIES", 2)
    run(scenes, tmp_path, "--stages", "baseline", "--max_steps", "2")
    rows = prepare_rows(DataArguments(data=scenes[1]), "validation", None, need_dense=False)
    captions = [text for several in rows["captions"] for text in several]
    facts = AutoModel.from_pretrained(tmp_path / "hub").config.text_cutoff
    assert facts["queries"] == len(off_topic_queries(captions)) > 100
    assert (facts["images"], facts["captions"]) == (8, len(captions))
    assert "right pictures" in (tmp_path / "hub" / "README.md").read_text()


def test_checkpoints_carry_nothing_that_was_measured_of_the_stage_before(both_stages):
    configs = sorted(both_stages[0].glob("*/checkpoint-*/config.json"))
    assert {path.parts[-3] for path in configs} == {"pretrain", "finetune"}
    for path in configs:
        config = json.loads(path.read_text())
        assert not any(config.get(name) for name in MEASURED), path
    best = json.loads((both_stages[0] / "pretrain" / "best" / "config.json").read_text())
    assert best["image_embeds_mean"] and best["text_cutoff"] is None  # of 8 pictures
