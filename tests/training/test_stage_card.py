"""What a run's model card says, and the examples beside it."""

import json
from pathlib import Path

import pytest
from small_runs import SMALL

from vsehub.training.d2s_stages import STAGES
from vsehub.training.flags.arguments import D2S_ARGUMENTS
from vsehub.training.stage_arguments import read_stages
from vsehub.training.stage_card import TRAINING_FILE, card_of, publish_run, widget_examples

METRICS = {"eval_rsum": 123.456, "eval_text_to_image_recall@1": 7.891, "eval_loss": 3.0, "eval_runtime": 9.0}


@pytest.fixture
def stages(scenes, tmp_path):
    flags = ["--output_dir", str(tmp_path / "mine"), "--dense_text", "/home/somebody/dense.parquet"]
    return read_stages([*scenes, *SMALL, *flags], STAGES, D2S_ARGUMENTS)


def test_a_card_has_the_metrics_of_the_last_stage_and_the_towers(stages, scenes):
    results = {"pretrain": {"eval_rsum": 1.0}, "finetune": {**METRICS, "eval_intervals": {"rsum": (120.0, 127.0)}}}
    card = card_of(stages, results, "mine")
    (result,) = card["results"]
    assert result["metrics"] == {"rsum": 123.46, "text_to_image_recall@1": 7.89}
    assert result["split"] == "validation" and result["intervals"] == {"rsum": (120.0, 127.0)}
    assert card["name"] == "mine" and card["base_models"] == [scenes[3], scenes[5]]


def test_a_card_tells_training_in_lines_without_a_folder_of_this_machine(stages):
    facts = card_of(stages, {stage: METRICS for stage in stages}, "mine")["training"]
    assert list(facts) == ["pretrain", "finetune", "objective", "data and towers"]
    assert facts["data and towers"].startswith("dense text: dense.parquet;") and "/home" not in str(facts)
    assert facts["pretrain"].startswith("4 steps of 8 pairs per process, learning rate 0.0002")
    assert facts["objective"] == "hinge (margin 0.2), distillation x 1"
    stages["finetune"].objective.structure_weight = 2
    facts = card_of(stages, {stage: METRICS for stage in stages}, "mine")["training"]
    assert "structure x 2 (own)" in facts["objective"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "rsum on this split"),
        ({"metric_for_best_model": "eval_image_to_text_recall@1"}, "image_to_text_recall@1 on this split"),
        ({"load_best_model_at_end": False}, "its place: the last of the stage"),
    ],
)
def test_a_card_says_what_chose_the_checkpoint(stages, settings, said):
    for name, value in settings.items():
        setattr(stages["finetune"].training, name, value)
    (result,) = card_of(stages, {stage: METRICS for stage in stages}, "mine")["results"]
    assert result["selected"] == said


@pytest.mark.parametrize(
    ("logged", "said"), [([{"loss": 1.0}], "its place: the last"), ([{"eval_rsum": 1.0}], "rsum on this split")]
)
def test_a_stage_that_ended_before_its_first_evaluation_chose_nothing(stages, logged, said):
    folder = stages["finetune"].folder
    folder.mkdir(parents=True)
    (folder / "history.json").write_text(json.dumps({"log_history": logged}))
    (result,) = card_of(stages, {stage: METRICS for stage in stages}, "mine")["results"]
    assert result["selected"].startswith(said)


@pytest.mark.parametrize("note", ['{"pretrain": "3 steps"}', "half of", "[]", None])
def test_a_stage_of_an_earlier_run_is_told_too(stages, tmp_path, note):
    args = stages["finetune"]
    args.model.stage1_model = str(tmp_path / "pretrain" / "best")
    if note is not None:
        (tmp_path / "pretrain").mkdir()
        (tmp_path / "pretrain" / TRAINING_FILE).write_text(note)
    facts = card_of({"finetune": args}, {"finetune": METRICS}, "mine")["training"]
    assert facts.get("pretrain") == ("3 steps" if note and "steps" in note else None)
    assert "best" not in card_of({"finetune": args}, {"finetune": METRICS}, "mine")["base_models"]


def test_examples_are_pictures_with_ranked_captions(rows, tiny_model, tiny_processor, tmp_path):
    first, second = widget_examples(tmp_path, tiny_model, tiny_processor, rows, 2)
    assert (tmp_path / first["src"]).exists() and second["src"] == "example_1.jpg"
    assert first["labels"][0] == rows[0]["captions"][0] and len(first["labels"]) == 4
    scores = [line["score"] for line in first["output"]]
    assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)


def test_only_the_first_process_publishes(stages, tiny_model, tiny_processor, rows, monkeypatch):
    monkeypatch.setattr(type(stages["finetune"].training), "process_index", 1)
    publish_run(stages, tiny_model, tiny_processor, {stage: METRICS for stage in stages}, rows)
    assert not Path(stages["finetune"].root).exists()
