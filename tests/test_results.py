"""docs/results.md says what the ledger says, and marks the rows that are older than the code."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import claim_plots  # noqa: E402
import claim_tables  # noqa: E402
import kept_runs  # noqa: E402
import ledger  # noqa: E402
import results  # noqa: E402
from arms import CLAIMS, Arm, Bench, Claim  # noqa: E402
from small_runs import scene_rows  # noqa: E402
from transformers import BertModel, ViTModel  # noqa: E402

from vsehub.evaluation.embed import RowInputs, embed_rows  # noqa: E402
from vsehub.processing.processing_dual_encoder import square_image_processor  # noqa: E402


def test_the_tables_are_those_of_the_ledger_and_stale_rows_are_marked():
    """After a change of the code that decides results: `make results` (or `make results-tables` to mark the rows)."""
    page = claim_tables.PAGE.read_text(encoding="utf-8")
    assert claim_tables.with_tables(page, ledger.read()) == page


def test_each_claim_with_runs_has_a_plot_of_them_on_the_page():
    """After new runs: `make results-tables`."""
    page = claim_tables.PAGE.read_text(encoding="utf-8")
    for claim in CLAIMS.values():
        values = claim_plots.values_of(claim, ledger.read())
        if values:
            path = claim_plots.picture_of(claim.name)
            assert claim_plots.digest(values) in path.read_text(encoding="utf-8"), path
            assert f"](pictures/{path.name})" in page


def test_every_line_of_the_ledger_says_what_made_it():
    for line in ledger.read():
        assert line["claim"] in CLAIMS and line["arm"] in CLAIMS[line["claim"]].arms
        assert line["commit"] and line["versions"]["torch"] and line["cpu_seconds"] > 0 and line["steps"] > 0
        metric = line["metrics"][line["metric"]]
        assert np.mean(line["shares"]) == pytest.approx(metric, abs=2e-3)


def line(arm="b", seed=0, code="new", value=50.0, claim="some", **more):
    return more | {
        "claim": claim,
        "arm": arm,
        "seed": seed,
        "code": code,
        "metric": "rsum",
        "metrics": {"rsum": value},
        "shares": [value] * 4,
        "steps": 10,
        "cpu_seconds": 5,
    }


def test_a_row_is_stale_until_one_of_its_runs_is_repeated_exactly():
    old = [line(seed=seed, code="old", value=50 + seed) for seed in range(3)]
    runs = ledger.runs_of(old, "some", "b")
    assert ledger.is_stale(runs, old, "new") and not ledger.is_stale(runs, old, "old")
    repeated = [*old, line(seed=0, code="new", value=50.004)]
    assert not ledger.is_stale(ledger.runs_of(repeated, "some", "b"), repeated, "new")
    other = [*old, line(seed=0, code="new", value=50.02)]
    assert ledger.is_stale(ledger.runs_of(other, "some", "b"), other, "new")
    another_arm = [*old, line(arm="a", code="new")]
    assert ledger.is_stale(ledger.runs_of(another_arm, "some", "b"), another_arm, "new")


def test_codes_are_compared_on_equal_processors_and_through_codes_between():
    rows = [line(seed=seed, code="old") for seed in range(3)]
    elsewhere = {"value": 51.0, "processor": "other"}  # rounds otherwise
    repeated = [*rows, line(code="new", **elsewhere)]
    assert ledger.is_stale(ledger.runs_of(repeated, "some", "b"), repeated, "new")
    both = [*rows, line(code="old", **elsewhere), line(code="new", **elsewhere)]
    assert not ledger.is_stale(ledger.runs_of(both, "some", "b"), both, "new")
    between = [*rows, line(code="middle"), line(code="middle", **elsewhere), line(code="new", **elsewhere)]
    assert ledger.equal_codes(between, "new") == {"new", "middle", "old"}
    differs = [*between, line(seed=1, code="new", value=60.0)]
    assert ledger.equal_codes(differs, "new") == {"new", "middle"}


def test_each_older_code_of_a_row_is_repeated_once():
    lines = [line(seed=0, code="old"), line(seed=1, code="newer"), line(seed=2, code="newer"), line(seed=3, code="new")]
    runs = ledger.runs_of(lines, "some", "b")
    assert ledger.seeds_to_repeat(runs, lines, "new") == [0, 1]
    lines.append(line(seed=1, code="new"))
    assert ledger.seeds_to_repeat(ledger.runs_of(lines, "some", "b"), lines, "new") == [0]


def test_the_newest_run_of_a_seed_counts():
    lines = [line(seed=1, value=1.0), line(seed=0, value=2.0), line(seed=1, value=3.0), line(arm="a", value=9.0)]
    assert [run["metrics"]["rsum"] for run in ledger.runs_of(lines, "some", "b")] == [2.0, 3.0]


def test_a_repeated_run_shares_what_its_pictures_add_with_the_run_before_it(tmp_path):
    path = tmp_path / "runs.jsonl"
    runs = [line(), line(seed=1), line(), line(value=60.0)]
    for run in runs:
        ledger.append(run, path)
    assert [text.count("shares") for text in path.read_text().splitlines()] == [1, 1, 0, 1]
    assert ledger.read(path) == runs


def test_the_digest_of_the_code_is_the_same_on_every_python():
    """3.12 gave functions and classes type parameters, and 3.13 stopped to show lists that are empty."""
    shown = ledger._meaning("class A:\n    def f(self): return []")
    arguments = "arguments(posonlyargs=[], args=[arg(arg='self')], kwonlyargs=[], kw_defaults=[], defaults=[])"
    function = (
        f"FunctionDef(name='f', args={arguments}, body=[Return(value=List(elts=[], ctx=Load()))], decorator_list=[])"
    )
    owner = f"ClassDef(name='A', bases=[], keywords=[], body=[{function}], decorator_list=[])"
    assert shown == f"Module(body=[{owner}], type_ignores=[])"


def test_the_digest_of_the_code_changes_with_the_code_and_not_with_its_words(tmp_path):
    for name in ledger.CODE:
        path = tmp_path / name
        path = path if path.suffix else path / "one.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Says."""\n\n\ndef f():\n    """Doubles."""\n    return 2  # why\n')
    ledger.code_digest.cache_clear()
    before = ledger.code_digest(tmp_path)
    changed = tmp_path / ledger.CODE[-1]
    changed.write_text('"""Says more."""\n\n\ndef f():\n    # because\n    return 2\n')
    ledger.code_digest.cache_clear()
    assert ledger.code_digest(tmp_path) == before
    changed.write_text("def f():\n    return 3\n")
    ledger.code_digest.cache_clear()
    assert ledger.code_digest(tmp_path) != before
    ledger.code_digest.cache_clear()


def test_a_file_that_moves_changes_no_digest_and_another_name_does():
    source = "from .pairs import Pairs, View\nfrom . import workers\nimport torch\n\n\ndef f():\n    from .a import b\n"
    head = "import torch\n\nfrom ..inputs.pairs import Pairs\nfrom ..rooms import workers\nfrom .views import View\n"
    moved = f"{head}\n\ndef f():\n    from ..c.a import b\n"
    assert ledger._meaning(source) == ledger._meaning(moved)
    for other in (
        "from .pairs import Pair, View",
        "from .pairs import Pairs as Rows, View",
        "from pairs import Pairs, View",
    ):
        assert ledger._meaning(source) != ledger._meaning(source.replace("from .pairs import Pairs, View", other))


def test_a_table_has_gains_in_bold_only_where_the_whole_interval_is_above_zero():
    claim = next(iter(CLAIMS.values()))
    rng, lines = np.random.default_rng(0), []
    for place, arm in enumerate(claim.arms):
        for seed in range(4):
            shares = 100 + 20 * (place > 0) + rng.normal(0, 2, 50)
            lines.append(
                line(arm, seed, "now", float(shares.mean()), claim.name)
                | {"shares": list(shares), "metric": claim.metric, "metrics": {claim.metric: float(shares.mean())}}
            )
    rows = claim_tables.table(claim, lines, "now").splitlines()[2:]
    for row, arm in zip(rows, claim.arms):
        assert arm in row and "older" not in row
        assert ("**+" in row) == (arm != claim.base)
    assert all("older than the code" in row for row in claim_tables.table(claim, lines, "later").splitlines()[2:])


TINY = """--image_size 32 --per_device_train_batch_size 8 --max_text_length 60 --projection_dim 16""".split()
STAGES = {"d2s": (("pretrain", 1), ("finetune", 2)), "pir": (("retrieval", 2),)}
OWN = {"d2s": ["--decoder_heads", "2"], "pir": ["--filter_size", "9", "--attention_heads", "2"]}


@pytest.fixture
def small_bench(tmp_path, tiny_vision_config, tiny_text_config, tiny_tokenizer):
    """A bench over generated pictures and untrained towers."""
    vision, text = tmp_path / "towers" / "mobilenet_v2", tmp_path / "text"
    ViTModel(tiny_vision_config).save_pretrained(vision)
    square_image_processor(32).save_pretrained(vision)
    BertModel(tiny_text_config).save_pretrained(text)
    tiny_tokenizer.save_pretrained(text)
    (tmp_path / "data" / "small").mkdir(parents=True)
    for place, split in enumerate(("train", "validation", "test")):
        scene_rows(24 if split == "train" else 9, place).to_parquet(
            str(tmp_path / "data" / "small" / f"{split}-00000-of-00001.parquet")
        )
    return Bench(str(tmp_path / "data"), str(tmp_path / "towers"), str(text), str(tmp_path / "out"))


MOVING = (
    "--freeze_text False --cache_text False --freeze_vision False --train_vision_from layers.1 --cache_views 2".split()
)


@pytest.mark.parametrize(
    ("system", "moving"),
    [("d2s", MOVING), *(pytest.param(name, [], marks=pytest.mark.slow) for name in ("d2s", "pir"))],
)
def test_kept_weights_read_the_test_split_once(system, moving, small_bench, tmp_path, monkeypatch, capsys):
    """What is evaluated later is what was trained."""
    monkeypatch.setattr(ledger, "LEDGER", tmp_path / "runs.jsonl")
    monkeypatch.setattr(ledger, "TEST_LEDGER", tmp_path / "test_runs.jsonl")
    metric = "mean_recall" if system == "pir" else "rsum"
    arm = Arm(STAGES[system], (*TINY, *OWN[system], *moving))
    claim = Claim("tiny", "small", system, metric, "all", {"all": arm}, gallery=6 if moving else None)
    trainers, train = [], small_bench.train
    monkeypatch.setattr(
        small_bench, "train", lambda *args, **kwargs: trainers.append(train(*args, **kwargs)) or trainers[-1]
    )
    assert results.is_missing(claim, "all", 100)
    ledger.append(results.run(small_bench, claim, "all", 100))
    assert not results.is_missing(claim, "all", 100) and results.is_missing(claim, "all", 100, again=True)
    results.run_test(small_bench, claim, "all", 101)
    assert "no kept weights" in capsys.readouterr().out and not ledger.TEST_LEDGER.exists()
    results.run_test(small_bench, claim, "all", 100)
    results.run_test(small_bench, claim, "all", 100)
    (trained,), (tested,) = ledger.read(), ledger.read(ledger.TEST_LEDGER)
    assert (
        tested["split"] == "test"
        and tested["code"] == trained["code"]
        and len(tested["shares"]) == (claim.gallery or 9)
    )
    model, processor = small_bench.untrained(claim, "all")
    kept_runs.restore(model, kept_runs.file_of(small_bench.out, "tiny", "all", 100))
    trainer = trainers[-1]
    embeds = embed_rows(model, RowInputs(processor, trainer.eval_dataset), Accelerator(cpu=True))
    for restored, trained in zip(embeds, trainer.last_embeds):
        torch.testing.assert_close(restored, trained, atol=1e-3, rtol=0)  # caches are in half precision
    assert model.config.image_embeds_mean == trainer.model.config.image_embeds_mean


@pytest.mark.slow
def test_runs_beside_each_other_give_the_lines_of_runs_one_by_one(small_bench):
    arms = {name: Arm(STAGES["d2s"][:1], (*TINY, *OWN["d2s"])) for name in ("one", "other")}
    claim, found = Claim("tiny", "small", "d2s", "rsum", "one", arms), []
    words = {"data": small_bench.data, "backbones": small_bench.backbones, "text": small_bench.text}
    for jobs in (1, 2):
        args = SimpleNamespace(jobs=jobs, threads=1, out=small_bench.out, channels_last=False, **words)
        lines = results.lines_of([(claim, arm, 100) for arm in arms], args)
        found.append({line["arm"]: line["metrics"] for line in lines})
    assert found[0] == found[1] and set(found[0]) == set(arms)


def test_a_gallery_holds_the_same_pictures_with_all_their_texts_in_every_run():
    claim = next(claim for claim in CLAIMS.values() if claim.gallery)
    rng = np.random.default_rng(1)
    pictures, owners = torch.arange(1800.0)[:, None], torch.from_numpy(rng.permutation(np.repeat(np.arange(1800), 2)))
    images, texts, rows = claim.searched(pictures, owners[:, None].float(), owners)
    assert len(images) == claim.gallery == len(images.unique()) and len(texts) == 2 * claim.gallery
    assert torch.equal(images[rows], texts)
    assert torch.equal(images, claim.searched(pictures, owners[:, None].float(), owners)[0])


def test_a_change_of_ndcg_is_bold_where_its_interval_over_seeds_is_above_zero():
    claim = CLAIMS["structure-rsicd"]
    base, other = list(claim.arms)[:2]
    lines = []
    for seed, noise in enumerate((0.0, 0.1, 0.3)):
        for arm, higher in ((base, 0.0), (other, 2.0)):
            metrics = dict.fromkeys(claim_tables.GRADED.values(), 60.0 + seed + higher)
            metrics["text_to_text_ndcg@50"] = 70.0 + (noise if arm == other else 0.0)
            lines.append(line(arm, seed, claim=claim.name) | {"metrics": metrics})
    row = claim_tables.graded_table(claim, lines).splitlines()[-1]
    assert row.startswith(f"| {other} | 63.0 (**+2.00 +- 0.00**) | 70.1 (+0.13 +- 0.88) |")  # 9.925 * 0.1528 / sqrt(3)
