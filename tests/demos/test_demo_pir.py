"""The PIR demo's own part: what is asked of training, what is written, and what is said of it."""

import json

import pytest
from PIL import Image

from vsehub.demos import demo_pir as module
from vsehub.demos.console import Console

BELIEF = {
    "airport": {"peak": 97.5, "belief": 80.25, "area": 18.0, "maps": 1},
    "river": {"peak": 90.0, "belief": 75.0, "area": 24.0, "maps": 1},
}


@pytest.fixture
def small(monkeypatch):
    """A world of a few scenes, a training and an explanation that answer at once; the list of what was run."""
    made = []

    def train(words):
        made.append(words)
        root = module.Path(words[words.index("--output_dir") + 1])
        (root / "validation.json").write_text(json.dumps({"prior": {"eval_accuracy": 85.5}}))
        (root / "hub").mkdir()
        (root / "hub" / "README.md").write_text("# demo\n")

    def evaluate(source, data, split):
        recalls = {f"{way}_recall@{k}": 10.0 for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)}
        return {**recalls, "rsum": 60.0, "mean_recall": 10.0}

    def explain(script, hub, gallery, out, heard):
        made.append(script)
        out.with_suffix(".json").write_text(json.dumps(BELIEF))
        Image.new("RGB", (8, 8)).save(out)

    monkeypatch.setattr(module, "COUNTS", {"train": 16, "validation": 8, "test": 8})
    monkeypatch.setattr(module.run_pir, "main", train)
    monkeypatch.setattr(module, "evaluate_model", evaluate)
    monkeypatch.setattr(module, "in_a_clean_process", explain)
    return made


def test_both_stages_are_trained_and_belief_is_drawn(small, tmp_path, capsys, check_page):
    root = tmp_path / "demo"
    text, results = module.demo(root, 3, Console())
    words, script = small
    assert words[0].endswith("pir_demo.yaml") and words[words.index("--seed") + 1] == "3"
    assert {"--vision", "--text", "--instruction"} <= set(words) and script == "demo_belief.py"
    assert results["prior_accuracy"] == 85.5 and results["PIR"]["seconds"] >= 0 and results["belief"] == BELIEF
    assert json.loads((root / "metrics.json").read_text()) == results
    scenes = json.loads((root / "gallery" / "scenes.json").read_text())
    assert len(scenes) == 8 and all(scene["label"] and len(scene["objects"]) == 8 for scene in scenes)
    assert all(set(scene["captions"]) <= set(scene["true"]) for scene in scenes)
    assert "8 test scenes, 24 captions, seed 3" in text and "the prior knows 85.5 %" in text
    assert "river                                 90.0        75.0        24.0" in text
    page = check_page((root / "index.html").read_text(), results)
    assert page.numbers["belief/river/peak"] == "90.0" and page.numbers["prior_accuracy"] == "85.5"
    assert module.TOLERANCE in (root / "hub" / "README.md").read_text()
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("PIR from nothing") and "vsehub explain" in said.err
