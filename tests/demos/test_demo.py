"""The demo's own part: what is trained in which order, what is written, and what is said of it."""

import json
from dataclasses import replace

import pytest
from PIL import Image

from vsehub.demos import demo as module
from vsehub.demos.console import Console
from vsehub.demos.demo_search import says
from vsehub.demos.generated_scenes import CLEAR, QUERIES, dense_text, scene_of, seed_of

KS = (1, 5, 10)
COUNTS = {"train": 4, "validation": 2, "test": 3}
HITS = [
    {"query": "a red circle", "right": 5, "there": 9},
    {"query": "a blue ring", "right": 3, "there": 5},
    {"query": "a black square", "right": 1, "there": 1},  # too few to count
]


@pytest.fixture
def small(monkeypatch):
    """Stages and a search that answer at once; the list of what was trained and run."""
    made = []

    def train(job, data_root, out, seed, stages, stage1=None):
        made.append((out.name, seed, stages, stage1 and stage1.relative_to(out)))
        (out / "hub").mkdir(parents=True, exist_ok=True)
        (out / "hub" / "README.md").write_text("# demo\n")
        recalls = {f"{way}_recall@{k}": 10.0 for way in ("image_to_text", "text_to_image") for k in KS}
        rsum = 60.0 + seed + (30 if "finetune" in stages else 0)
        return {**recalls, "rsum": rsum, "mean_recall": rsum / 6, "seconds": 2.0}

    def search(script, hub, gallery, out, heard):
        made.append(script)
        assert json.loads((gallery / "queries.json").read_text()) == list(QUERIES)
        asked = len(json.loads((gallery / "off_topic.json").read_text()))
        out.with_name("nothing.json").write_text(json.dumps({"asked": asked, "nothing": asked - 2}))
        out.with_suffix(".json").write_text(json.dumps(HITS))
        Image.new("RGB", (8, 8)).save(out)

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "in_a_clean_process", search)
    return made


def test_both_stages_are_trained_and_the_folder_is_searched(small, tmp_path, capsys, check_page):
    root = tmp_path / "demo"
    text, results = module.demo(root, 3, Console(), replace(module.DEMO, counts=COUNTS))
    first, second, script = small
    assert (first[2], second[2], script) == (["pretrain"], ["finetune"], "demo_search.py")
    assert second[3].as_posix() == "pretrain/best"
    assert results["D2S-VSE (both stages)"]["seconds"] == 4.0  # with those of the first stage
    assert json.loads((root / "metrics.json").read_text()) == results
    scenes = json.loads((root / "gallery" / "scenes.json").read_text())
    assert len(scenes) == 3 and all((root / "gallery" / scene["file"]).exists() for scene in scenes)
    assert "3 test scenes, 6 captions, seed 3" in text and "index.html" in text
    assert "4.00 of the first 5 hits are right on average over 2 queries" in text
    asked = results["search"]["off_topic"]["asked"]
    assert asked > 100 and f"{asked - 2} of {asked} queries about things that are in no picture" in text
    page = check_page((root / "index.html").read_text(), results)
    assert page.numbers["search/queries/a blue ring/right"] == "3" and page.numbers["search/mean_right_of_5"] == "4.0"
    assert module.TOLERANCE in (root / "hub" / "README.md").read_text()
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("D2S-VSE from nothing") and "what to try next" in said.err
    assert said.err.count("vsehub ") >= 4 and "400 steps" in said.err


def test_every_fixed_query_has_five_right_pictures_among_the_test_scenes():
    scenes = []
    for index in range(module.DEMO.counts["test"]):
        scene, rng = scene_of(seed_of("test"), index, CLEAR)
        scenes.append({"dense_text": dense_text(scene, rng)})
    assert module.DEMO.world == CLEAR and len(set(QUERIES)) == 20
    assert all(sum(says(query, scene) for scene in scenes) >= 5 for query in QUERIES)


def test_search_figures_of_no_query_that_counts():
    assert module.search_figures(HITS[2:])["mean_right_of_5"] is None


def test_the_comparison_tells_gain_and_spread(small, tmp_path):
    job = replace(module.COMPARISON, counts=COUNTS)
    text, results = module.compare(tmp_path / "demo", seeds=(0, 2), job=job)
    assert [entry[2] for entry in small] == [["baseline"], ["pretrain", "finetune"]] * 2
    assert results["gain"] == pytest.approx(30) and results["deviation"] == pytest.approx(2**0.5)
    assert "D2S-VSE - sparse only: +30.0 rSum; the larger standard deviation is 1.4" in text
    assert json.loads((tmp_path / "demo" / "compare.json").read_text()) == json.loads(json.dumps(results))


def test_both_systems_of_the_comparison_take_equally_many_steps():
    for job in (module.DEMO, module.COMPARISON):
        assert job.steps("pretrain", "finetune") == job.steps("baseline")
