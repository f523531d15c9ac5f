"""The PIR demo's own part: what is asked of training, what is written, and what is said of it."""

import json

import pytest

from vsehub.demos import demo_pir as module


@pytest.fixture
def small(monkeypatch):
    """A world of a few scenes, and a training that answers at once; the list of what was run."""
    made = []

    def train(words):
        made.append(words)
        root = module.Path(words[words.index("--output_dir") + 1])
        (root / "validation.json").write_text(json.dumps({"prior": {"eval_accuracy": 85.5}}))

    def evaluate(source, data, split):
        recalls = {f"{way}_recall@{k}": 10.0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
        return {**recalls, "rsum": 60.0, "mean_recall": 10.0}

    monkeypatch.setattr(module, "COUNTS", {"train": 16, "validation": 8, "test": 8})
    monkeypatch.setattr(module.run_pir, "main", train)
    monkeypatch.setattr(module, "evaluate_model", evaluate)
    monkeypatch.setattr(module, "in_a_clean_process", lambda script, *words: made.append(script))
    return made


def test_both_stages_are_trained_and_belief_is_drawn(small, tmp_path):
    text, results = module.demo(tmp_path / "demo", seed=3)
    words, script = small
    assert words[0].endswith("pir_demo.yaml") and words[words.index("--seed") + 1] == "3"
    assert {"--vision", "--text", "--instruction"} <= set(words) and script == "demo_belief.py"
    assert results["prior_accuracy"] == 85.5 and results["PIR"]["seconds"] >= 0
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text()) == results
    scenes = json.loads((tmp_path / "demo" / "gallery" / "scenes.json").read_text())
    assert len(scenes) == 8 and all(scene["label"] and len(scene["objects"]) == 8 for scene in scenes)
    assert "8 test scenes, 24 captions, seed 3" in text and "the prior knows 85.5 %" in text and "belief.png" in text
