"""The demo's own part: what is trained in which order, what is written, and what is said of it."""

import json

import pytest

from vsehub.demos import demo as module

KS = (1, 5, 10)


@pytest.fixture
def small(monkeypatch):
    """Worlds of a few scenes, stages that answer at once; the list of what was trained and run."""
    made = []

    def train(data_root, out, seed, stages, stage1=None):
        made.append((out.name, seed, stages, stage1 and stage1.relative_to(out)))
        recalls = {f"{way}_recall@{k}": 10.0 for way in ("image_to_text", "text_to_image") for k in KS}
        rsum = 60.0 + seed + (30 if "finetune" in stages else 0)
        return {**recalls, "rsum": rsum, "mean_recall": rsum / 6, "seconds": 2.0}

    monkeypatch.setattr(module, "COUNTS", {"train": 4, "validation": 2, "test": 3})
    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "in_a_clean_process", lambda script, *words: made.append(script))
    return made


def test_both_stages_are_trained_and_the_folder_is_searched(small, tmp_path):
    text, results = module.demo(tmp_path / "demo", seed=3)
    first, second, script = small
    assert (first[2], second[2], script) == (["pretrain"], ["finetune"], "demo_search.py")
    assert second[3].as_posix() == "pretrain/best"
    assert results["D2S-VSE (both stages)"]["seconds"] == 4.0  # with those of the first stage
    assert json.loads((tmp_path / "demo" / "metrics.json").read_text()) == results
    scenes = json.loads((tmp_path / "demo" / "gallery" / "scenes.json").read_text())
    assert len(scenes) == 3 and all((tmp_path / "demo" / "gallery" / scene["file"]).exists() for scene in scenes)
    assert "3 test scenes, 6 captions, seed 3" in text and "search.png" in text


def test_the_comparison_tells_gain_and_spread(small, tmp_path):
    text, results = module.compare(tmp_path / "demo", seeds=(0, 2))
    assert [entry[2] for entry in small] == [["baseline"], ["pretrain", "finetune"]] * 2
    assert results["gain"] == pytest.approx(30) and results["deviation"] == pytest.approx(2**0.5)
    assert "D2S-VSE - sparse only: +30.0 rSum; the larger standard deviation is 1.4" in text
    assert json.loads((tmp_path / "demo" / "compare.json").read_text()) == json.loads(json.dumps(results))
