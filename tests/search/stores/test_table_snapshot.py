"""Hits, conditions and states are those of a local index, whatever store the rows lie in."""

import json
import threading

import numpy as np
import pyarrow.compute as pc
import pytest

from vsehub.search.filters import chosen_rows
from vsehub.search.index_store import IndexFolderError
from vsehub.search.mixed import search_mixed
from vsehub.search.stores import table_snapshot
from vsehub.search.stores.copies import kept_in
from vsehub.search.stores.places import open_index

CONDITIONS = [
    {},
    {"where": "size > 30"},
    {"where": 'label == "it\'s" or caption is None'},
    {"where": "not (size in (1, 2, 3)) and width >= 2.5"},
    {"where": "taken < '2024-06-01' and id != 'p4'"},
    {"where": "not caption in ('caption; 3 --',) and not width in (1, 2.5)"},
    {"where": "caption not in () and not (width in () or size in [1, 2])"},
    {"where": "'2024-03' <= seen < '2024-08-15T12:00+02:00' and not longitude > 0"},
    {"where": "seen is None or seen in ('2024-02-01T10:30Z',)"},
    {"where": 'column("size") == 1 and not column("size") == size and field("cloud cover") < 5'},
    {"where": 'field("cloud cover") is None or sunny'},
    {"where": pc.field("longitude") < 0},
    {"path": "odd/*"},
    {"among": "text", "where": "row is None"},
    {"where": "size < 0"},
]


def item(number: int, rng) -> dict:
    """An item with some of its fields, whose names and texts hold what SQL and JSON write in their own way."""
    fields = {"label": ["it's", 'a "b"', "ü\\n"][number % 3], "taken": f"2024-{1 + number % 12:02}-01"}
    fields |= {"width": number / 2} if number % 4 else {}
    fields |= {"seen": f"2024-{1 + number % 12:02}-01T12:30:00+02:00", "cloud cover": number % 7} if number % 3 else {}
    fields |= {"size": number % 4, "longitude": (-1) ** number * 7.5, "sunny": number % 2 == 0}
    given = {"size": int(rng.integers(60)), "path": f"/x/{['even', 'odd'][number % 2]}/{number}'.jpg"}
    given |= {"caption": f"caption; {number} --", "stamp": 1_700_000_000_123_456_789 + number, "box": [0, 1, number, 3]}
    kept = {name: value for name, value in given.items() if rng.random() < 0.8}
    return {"id": f"p{number}", "modality": ["image", "text"][number % 5 == 0], "fields": json.dumps(fields)} | kept


def change_all(indexes, rng):
    """The same random additions, replacements and deletions in several indexes; many rows are equal, for ties."""
    for _ in range(3):
        numbers = rng.choice(40, 16, replace=False)
        vectors, items = rng.integers(-1, 2, (16, 4)) + [0, 0, 0, 0.5], [item(int(n), rng) for n in numbers]
        gone = [f"p{n}" for n in rng.choice(40, 4)]
        for index in indexes:
            index.add(vectors, items)
        assert len({index.delete(gone) for index in indexes}) == 1


def hits(index, query, k, cutoff=None, **conditions):
    now = index.snapshot
    rows, scores = now.search(query, k, cutoff, chosen_rows(now, **conditions))[0]
    return now.items(rows), scores, now.vectors(rows)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), 2])
def test_every_search_gives_the_same_hits_in_the_same_order(address, local, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    if seed:  # the nearest of all until enough meet a condition, and several requests for its rows
        monkeypatch.setattr(table_snapshot, "NAMED_AT_ONCE", 4)
        monkeypatch.setattr(table_snapshot, "FEW", 4)
        monkeypatch.setattr(table_snapshot, "ASKED_AT_MOST", [5_000, 20][seed - 1])
    mine = local()
    mine.add([[1, 2, 3, 4]], [item(60, rng)])
    theirs = kept_in(mine, address)
    change_all([mine, theirs], rng)
    theirs = open_index(address)
    assert len(mine) == len(theirs)
    for conditions in CONDITIONS:
        for k, cutoff in (5, 0.2), (100, None):
            query = rng.standard_normal((1, 4))
            expected, scores, vectors = hits(mine, query, k, cutoff, **conditions)
            got = hits(theirs, query, k, cutoff, **conditions)
            assert [each["id"] for each in got[0]] == [each["id"] for each in expected], conditions
            assert got[0] == expected and np.array_equal(got[1], scores) and np.array_equal(got[2], vectors)


def test_all_rows_are_read_in_their_order_and_mixed_ones_ranked_without_the_gap(address, local):
    rng = np.random.default_rng(5)
    mine = local()
    mine.add([[1, 2, 3, 4]], [item(60, rng)])
    theirs = kept_in(mine, address)
    change_all([mine, theirs], rng)
    for name in "id", "caption", "size", "box", "fields":
        alive = [value for value, there in zip(mine.column(name), mine.alive) if there]
        assert [value for value, there in zip(theirs.column(name), theirs.alive) if there] == alive
    (vectors, items), (others, same) = next(theirs.batches()), next(mine.batches())
    assert np.array_equal(vectors, others) and items.to_pylist() == same.to_pylist()
    means = {"image": np.array([0.1, 0, 0.2, 0]), "text": np.array([0, 0.3, 0, 0.1])}
    query = np.array([0.5, 0.5, 0.5, 0.5], np.float32)
    assert mine.snapshot.is_mixed() and theirs.snapshot.is_mixed()
    got, expected = (search_mixed(index.snapshot, query, means, 8) for index in (theirs, mine))
    assert theirs.items(got[0]) == mine.items(expected[0]) and np.array_equal(got[1], expected[1])
    images = chosen_rows(theirs.snapshot, among="image")
    assert not theirs.snapshot.is_mixed(images)


def test_an_item_is_known_by_id_or_path_and_a_wrong_one_is_told(address, local):
    mine = local()
    mine.add(np.eye(2), [{"id": "it's", "path": "/x/a.jpg"}, {"id": "/x/b.jpg"}])
    now = kept_in(mine, address).snapshot
    assert [now.row_of("it's"), now.row_of("/x/b.jpg")] == [0, 1]
    with pytest.raises(ValueError, match="has no item with the id '/x/c.jpg'; did you mean '/x/b.jpg'"):
        now.row_of("/x/c.jpg")
    with pytest.raises(IndexFolderError, match="dimension 2, the queries have 3"):
        now.search(np.eye(3)[:1])
    with pytest.raises(ValueError, match="k must be at least 1"):
        now.search(np.eye(2)[:1], 0)
    with pytest.raises(ValueError, match="no field 'colour'"):
        chosen_rows(now, where="colour == 1")
    for where in "caption == None", "caption in ('a')":
        with pytest.raises(ValueError, match="cannot be read: .*write `caption i"):
            chosen_rows(now, where=where)


def test_no_more_rows_are_asked_for_than_there_are(address, local, monkeypatch):
    mine = local()
    mine.add(np.eye(2), [{"id": "a"}, {"id": "b"}])
    now, asked = kept_in(mine, address).snapshot, []
    real = now._view.nearest
    monkeypatch.setattr(
        now._view, "nearest", lambda query, count, **more: asked.append(count) or real(query, count, **more)
    )
    assert now.search(np.eye(2)[:1], 10**9)[0][0].tolist() == [0, 1] and asked == [3]


def test_a_state_stays_what_it_was_while_another_writes(address, local):
    mine = local()
    mine.add(np.eye(4), [{"id": f"a{n}", "caption": "old"} for n in range(4)])
    now = kept_in(mine, address).snapshot
    other = open_index(address)
    writer = threading.Thread(target=lambda: other.add(np.eye(4)[::-1], [{"id": f"b{n}"} for n in range(4)]))
    writer.start()
    for _ in range(5):
        rows, scores = now.search(np.eye(4)[:1], 10)[0]
        assert [each["id"] for each in now.items(rows)] == ["a0", "a1", "a2", "a3"] and scores[0] == 1
    writer.join()
    assert len(open_index(address)) == 8 and len(now) == 4 and now.total == 4


def test_what_was_deleted_is_not_shown(address, local):
    mine = local()
    mine.add(np.eye(4), [{"id": f"photo{n}.jpg", "caption": f"caption {n}"} for n in range(4)])
    for index in mine, kept_in(mine, address):
        index.delete(["photo3.jpg"])
        assert sorted(index.snapshot.first("caption", 10)) == ["caption 0", "caption 1", "caption 2"]
        assert len(index.snapshot.first("id", 2)) == 2
        with pytest.raises(ValueError, match=r"no item with the id 'photo3.jpg'; did you mean 'photo[012].jpg'"):
            index.snapshot.row_of("photo3.jpg")
