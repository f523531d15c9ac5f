"""Proposing and ranking candidates, by both engines, against a full sort."""

import numpy as np
import pytest
from clouds import cloud

from vsehub.search import nearest
from vsehub.search.nearest import candidates, cut_through_tie, ranked


@pytest.fixture(params=["numpy", "faiss"])
def engine(request, monkeypatch):
    if request.param == "faiss":
        pytest.importorskip("faiss")
    else:
        monkeypatch.setattr(nearest, "load_faiss", lambda: None)


def sets(rows):
    return [{int(row) for row in line if row >= 0} for line in rows]


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (50, 7), (50, 80), (3000, 5)])
def test_candidates_are_the_best_of_all(engine, monkeypatch, rows, count):
    monkeypatch.setattr(nearest, "SCORES_AT_ONCE", 4)  # numpy goes through them in blocks of 1,024
    vectors, queries = cloud(rows), cloud(4, seed=1)
    expected = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :count]
    assert sets(candidates(vectors, queries, count)) == sets(expected)


@pytest.mark.parametrize("dropped", [1, 10, 90])
def test_rows_that_are_left_out_are_no_candidates(engine, dropped):
    vectors, queries = cloud(100), cloud(3, seed=1)
    left_out = np.zeros(100, bool)
    left_out[np.random.default_rng(2).choice(100, dropped, replace=False)] = True
    scores = np.where(left_out, -np.inf, queries @ vectors.T)
    expected = np.argsort(-scores, axis=1)[:, : min(5, 100 - dropped)]
    for line, best in zip(sets(candidates(vectors, queries, 5, left_out)), sets(expected)):
        assert best <= line and not any(left_out[row] for row in line)


def test_where_everything_is_left_out_there_is_no_candidate(engine):
    assert candidates(cloud(5), cloud(2), 3, np.ones(5, bool)).shape == (2, 0)
    assert candidates(cloud(0), cloud(2), 3).shape == (2, 0)


def test_ranking_is_by_cosine_and_then_by_row():
    vectors = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]], np.float32)
    rows, scores = ranked(np.array([9, 4, 2, 7]), vectors, np.array([1, 0], np.float32))
    assert rows.tolist() == [2, 9, 7, 4] and scores == pytest.approx([1, 1, 0.6, 0]) and scores.dtype == np.float64


def test_a_row_scores_the_same_wherever_it_stands():
    vectors, query = cloud(257, dimension=97), cloud(1, seed=3, dimension=97)[0]
    rows, scores = ranked(np.arange(257), vectors, query)
    for row, score in zip(rows, scores):
        assert ranked(np.array([row]), vectors[row : row + 1], query)[1][0] == score


@pytest.mark.parametrize(
    ("scores", "k", "count", "cut"),
    [
        ([0.9, 0.5, 0.5], 2, 3, True),  # a fourth of 0.5 may have been kept back
        ([0.9, 0.5, 0.4], 2, 3, False),
        ([0.9, 0.5, 0.5 - 1e-6], 2, 3, True),  # within what float32 tells apart
        ([0.9, 0.5], 2, 3, False),  # fewer than asked for: there are no more
    ],
)
def test_a_tie_with_what_was_not_proposed_is_noticed(scores, k, count, cut):
    assert cut_through_tie(np.array(scores), k, count) == cut
