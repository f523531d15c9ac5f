"""ROUGE-L against its definition and against the package `rouge_score`."""

import itertools
import re

import numpy as np
import pytest

from vsehub.evaluation import counting
from vsehub.evaluation.rouge import rouge_l_relevance


def lcs(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        table[i + 1, j + 1] = table[i, j] + 1 if a[i] == b[j] else max(table[i, j + 1], table[i + 1, j])
    return table[-1, -1]


def test_rouge_l_is_its_definition():
    pytest.importorskip("rapidfuzz")
    captions = [["a dog runs in the park", "the dog runs"], ["A boat on the river", "two boats", "a river in the park"]]
    found, flat = rouge_l_relevance(captions), [text.lower().split() for several in captions for text in several]
    for row, text in enumerate(flat):
        for image, several in enumerate(captions):
            refs = [ref.lower().split() for ref in several]
            precision = max(lcs(text, ref) / len(text) for ref in refs)
            recall = max(lcs(text, ref) / len(ref) for ref in refs)
            score = (1 + 1.2**2) * precision * recall / (recall + 1.2**2 * precision) if precision else 0
            assert found[row, image] == pytest.approx(score, abs=1e-6)
    assert found[0, 0] == pytest.approx(1)


def test_rouge_score_is_its_definition():
    pytest.importorskip("rapidfuzz")
    captions = [
        ["A dog, runs in the park!", "the dog's run"],
        ["", "...", "\u00c9t\u00e9 in the PARK 42nd"],
        ["two boats"],
    ]
    found = rouge_l_relevance(captions, variant="rouge_score", dtype=np.float64)
    flat = [re.findall("[a-z0-9]+", text.lower()) for several in captions for text in several]
    starts = np.cumsum([0, *map(len, captions)])
    for row, text in enumerate(flat):
        for image in range(3):
            scores = [
                2 * lcs(text, ref) / max(1, len(text) + len(ref)) for ref in flat[starts[image] : starts[image + 1]]
            ]
            assert found[row, image] == pytest.approx(max(scores), abs=1e-12)
    with pytest.raises(ValueError, match="not 'rouge2'"):
        rouge_l_relevance(captions, variant="rouge2")


@pytest.mark.parametrize("variant", ["tern", "rouge_score"])
def test_blocks_do_not_change_the_relevance(variant, monkeypatch):
    pytest.importorskip("rapidfuzz")
    rng = np.random.default_rng(0)
    words = np.array("a the dog cat runs sits park port river".split())
    captions = [[" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(3)] for _ in range(7)]
    whole = rouge_l_relevance(captions, variant=variant)
    monkeypatch.setattr(counting, "SCORES_AT_ONCE", 400)
    assert np.array_equal(rouge_l_relevance(captions, variant=variant), whole)


def test_the_package_rouge_score_agrees():
    scorer = pytest.importorskip("rouge_score.rouge_scorer", reason="rouge_score is not installed")
    pytest.importorskip("rapidfuzz")
    scorer = scorer.RougeScorer(["rougeL"])
    captions = [
        ["A dog, runs in the park!", "the dog's run"],
        ["", "\u00c9t\u00e9 in the park 42nd run"],
        ["two-way boats"],
    ]
    found, flat = rouge_l_relevance(captions, variant="rouge_score", dtype=np.float64), sum(captions, [])
    for row, text in enumerate(flat):
        expected = [max(scorer.score(ref, text)["rougeL"].fmeasure for ref in several) for several in captions]
        assert found[row] == pytest.approx(expected, abs=1e-9)
