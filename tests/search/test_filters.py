"""Conditions on hits: what they select, what they refuse, and that the ranking behind them is brute force."""

import json

import numpy as np
import pyarrow.compute as pc
import pytest
from clouds import cloud

from vsehub.search.filters import chosen_rows, path_matches
from vsehub.search.vector_index import VectorIndex

ROWS = 3000


def item(n):
    fields = {"width": 10 * n, "label": ["boat", "pier", "it's"][n % 3], "taken": f"20{n % 30:02}-01-01", "new": n > 5}
    return {
        "id": str(n), "path": f"/photos/20{n % 30:02}/{n}.jpg", "size": n, "collection": "ab"[n % 2],
        "modality": "text" if n % 7 == 0 else "image", "fields": json.dumps(fields) if n % 11 else None,
    }  # fmt: skip


@pytest.fixture(scope="module", params=["flat", "hnsw"])
def index(request):
    if request.param == "hnsw":
        pytest.importorskip("faiss")
    index = VectorIndex(kind=request.param)
    index.add(cloud(2800), [item(n) for n in range(2800)])
    index.add(cloud(200, seed=1), [item(n) for n in range(2800, ROWS)], merge=False)
    index.delete([str(n) for n in range(0, 300, 3)])
    return index


KNOWN = [n for n in range(ROWS) if n % 11]  # rows with fields
CONDITIONS = {
    "size >= 2990": lambda n: n >= 2990,
    "10 < size <= 100 and collection == 'a'": lambda n: 10 < n <= 100 and n % 2 == 0,
    "not (size > 100) or id in ('2000', '2001')": lambda n: n <= 100 or n in (2000, 2001),
    "width >= 1000": lambda n: n % 11 and n >= 100,
    'label == "it\'s" and new': lambda n: n % 11 and n % 3 == 2 and n > 5,
    "taken > '2024-06-01' and taken < '2026-06-01'": lambda n: n % 11 and n % 30 in (25, 26),
    "label is None and modality != 'text'": lambda n: n % 11 == 0 and n % 7,
    "label not in ['boat', 'pier']": lambda n: n % 11 and n % 3 == 2,
    "not label in ['boat', 'pier']": lambda n: n % 11 and n % 3 == 2,
    "not (label in {'boat'} or size < 100)": lambda n: n % 11 and n % 3 and n >= 100,
    "not (size < 100 and label not in ('boat',))": lambda n: n >= 100 or (n % 11 and n % 3 == 0),
    "not not label in ('boat',)": lambda n: n % 11 and n % 3 == 0,
    "label in () or size == 7": lambda n: n == 7,
    "label not in []": lambda n: n % 11,
    "not label in ()": lambda n: n % 11,
    "id in ('5',) and not caption in ('x',)": lambda n: False,
    "size > -1": lambda n: True,
    "caption is not None": lambda n: False,
}


@pytest.mark.parametrize("where", CONDITIONS)
def test_hits_are_brute_force_over_the_rows_that_meet_the_condition(index, where):
    now = index.snapshot
    mask = chosen_rows(now, where=where)
    meets = np.array([bool(CONDITIONS[where](int(name))) for name in now.column("id")]) & now.alive
    assert np.array_equal(mask & now.alive, meets)
    queries = cloud(6, seed=9)
    cosines = queries.astype(np.float64) @ now.vectors(np.arange(ROWS)).T.astype(np.float64)
    for (rows, _), row in zip(now.search(queries, 12, where=mask), np.where(meets, cosines, -2)):
        assert rows.tolist() == np.argsort(-row, kind="stable")[: min(12, meets.sum())].tolist()


@pytest.mark.parametrize("where", ["class == 'port'", 'field("class") == "port"', 'not field("cloud cover") < 20'])
def test_a_column_may_have_any_name(where):
    index = VectorIndex()
    rows = [{"class": "port", "cloud cover": 30}, {"class": "river", "cloud cover": 10}]
    index.add(cloud(2), [{"id": str(n), "fields": json.dumps(row)} for n, row in enumerate(rows)])
    assert chosen_rows(index.snapshot, where=where).tolist() == [True, False]


def test_a_column_that_is_not_there_is_named_as_it_was_written(index):
    for where in ("class == 1", 'field("class") == 1'):
        with pytest.raises(ValueError, match="no field 'class'"):
            chosen_rows(index.snapshot, where=where)
    for where in ("field(class) == 1", "field('a', 'b') == 1", "field(name='a') == 1"):
        with pytest.raises(ValueError, match="a column is named as in"):
            chosen_rows(index.snapshot, where=where)


def test_conditions_are_joined(index):
    mask = chosen_rows(index.snapshot, "text", pc.field("size") < 700, "2007/*.jpg")
    assert np.flatnonzero(mask).tolist() == [n for n in range(700) if n % 7 == 0 and n % 30 == 7]
    assert chosen_rows(index.snapshot) is None


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("2024/*", [1, 1, 0, 0]), ("*.jpg", [1, 1, 1, 0]), ("/a/2024/x.jpg", [1, 0, 0, 0]), ("x.jpg", [1, 0, 0, 0]),
        ("024/*", [0, 0, 0, 0]), ("/2024/*", [0, 0, 0, 0]), ("2024/[yz]*", [0, 1, 0, 0]), ("b/", [0, 1, 0, 0]),
        ("./2024/*", [1, 1, 0, 0]), ("./2024/b/", [0, 1, 0, 0]), ("/a/2024/", [1, 1, 0, 0]),
    ],
)  # fmt: skip
def test_a_pattern_may_begin_at_any_folder(pattern, expected):
    paths = ["/a/2024/x.jpg", "/a/2024/b/y.jpg", "/a/2023/z.jpg", None]
    expected = [bool(value) for value in expected]
    if pattern == "2024/[yz]*":
        expected[1] = False  # y.jpg lies one folder deeper
    assert path_matches(paths, pattern).tolist() == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("height > 3", "no field 'height'; it has id, path, .*collection, width, label, taken, new"),
        ("size = 3", "cannot be read: write it as in Python"),
        ("size > 3 AND id == 'a'", "cannot be read"),
        ("taken >= 2024-01-01", "cannot be read"),
        ("__import__('os').system('true')", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 5000, "cannot be read"),
        ("size > 'large'", "does not fit"),
        ("box > 3", "does not fit"),
        ("label in ('boat')", r"needs a comma: write `label in \('boat',\)`"),
        ("not label not in 'boat'", r"needs a comma: write `label not in \('boat',\)`"),
        ("width in 10", r"needs a comma: write `width in \(10,\)`"),
        ("label in {'boat': 1}", r"a list of values comes after `in`: .* `label in \(\"boat\", \"pier\"\)`"),
        ("label in collection", "a list of values comes after `in`"),
        ("label in ('boat', None)", "leave it out of the list and add `or label is None`"),
        ("label not in ('boat', None)", "leave it out of the list$"),
        ("label == None", "write `label is None`"),
        ("None != label", "write `label is not None`"),
        ("size > 99999999999999999999", "too large a number: write one up to 9223372036854775807"),
        ("size in (1, -99999999999999999999)", "too large a number"),
        ("size > " + "9" * 5000, "cannot be read"),
        ("size", "does not fit"),
        (pc.field("height") > 3, "a field that is not there, or not of one type; there are id, path"),
    ],
)
def test_what_cannot_be_decided_is_one_line(index, where, said):
    with pytest.raises(ValueError, match=said) as refused:
        chosen_rows(index.snapshot, where=where)
    assert "\n" not in str(refused.value)


def test_a_field_of_several_types_is_refused():
    index = VectorIndex()
    index.add(cloud(2), [{"id": "a", "fields": '{"year": 1}'}, {"id": "b", "fields": '{"year": "one"}'}])
    with pytest.raises(ValueError, match="'year' has values of several types"):
        chosen_rows(index.snapshot, where="year > 1")


def test_a_field_of_several_types_stops_no_expression_on_others():
    index = VectorIndex()
    fields = ['{"year": 1, "width": 1}', '{"year": "one", "width": 2}']
    index.add(cloud(2), [{"id": str(number), "fields": text} for number, text in enumerate(fields)])
    assert chosen_rows(index.snapshot, where=pc.field("width") > 1).tolist() == [False, True]
    with pytest.raises(ValueError, match="not there, or not of one type; there are .*, width$"):
        chosen_rows(index.snapshot, where=pc.field("year") > 1)


def test_what_deleted_rows_held_decides_nothing():
    index, fields = VectorIndex(), ['{"year": "one", "gone": 1}', *['{"year": 1}'] * 9]
    index.add(cloud(10), [{"id": str(n), "fields": text} for n, text in enumerate(fields)])
    index.delete(["0"])
    assert index.snapshot.total == 10  # it is only marked
    assert (chosen_rows(index.snapshot, where="year == 1") & index.alive).sum() == 9
    with pytest.raises(ValueError, match="no field 'gone'; it has .*year$"):
        chosen_rows(index.snapshot, where="gone == 1")


def test_a_field_of_too_large_numbers_is_refused():
    index = VectorIndex()
    index.add(cloud(1), [{"id": "a", "fields": json.dumps({"n": 2**70})}])
    with pytest.raises(ValueError, match="'n' has too large numbers"):
        chosen_rows(index.snapshot, where="n > 1")


def dated(*taken):
    """An index of rows that were taken at these dates."""
    index = VectorIndex()
    items = [{"id": str(n), "fields": json.dumps({"taken": text} if text else {})} for n, text in enumerate(taken)]
    index.add(cloud(len(taken)), items)
    return index.snapshot


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("taken >= '2024-06-01'", [False, True, True, False]),
        ("taken > '2024-06-01T02:00:00+02:00'", [False, False, True, False]),
        ("taken in ('2024-06-01T00:00Z',)", [False, True, False, False]),
        ("'2024' < taken < '2024-06-01T00:00:00.4Z'", [True, True, False, False]),
        ("taken is None", [False, False, False, True]),
        ("not taken == '2024-06-01'", [True, False, True, False]),
    ],
)
def test_dates_are_compared_as_moments(where, expected):
    now = dated("2024-06-01T01:59:59+02:00", "2024-06-01T01:00:00+01:00", "2024-06-01T00:00:00.500000+00:00", None)
    assert chosen_rows(now, where=where).tolist() == expected


def test_dates_that_cannot_be_compared_are_refused():
    for taken, where, said in (
        (["2024-06-01"], "taken > '2024-06-01T00:00Z'", "have no time zone: leave out that of"),
        (["2024-06-01", "2024-06-01T00:00Z"], "taken > '2024-06-01'", "with and without a time zone"),
        (["2024-06-01"], "taken > 'June'", "'June' is no date: write '2024-06-01'"),
        (["2024-06-01"], "taken > 2024", "2024 is no date"),
        (["2024-06-01"], "'2024' < taken < stamp", "taken is a date, and stamp is none: compare it with one"),
    ):
        with pytest.raises(ValueError, match=said):
            chosen_rows(dated(*taken), where=where)


def test_a_column_that_is_called_as_a_field_of_the_index_has_a_name_of_its_own():
    index = VectorIndex()
    index.add(cloud(2), [{"id": str(n), "size": 7, "fields": json.dumps({"size": n, "width": n})} for n in range(2)])
    assert chosen_rows(index.snapshot, where="size == 7").tolist() == [True, True]
    for where in ('column("size") == 1', 'column("width") == 1', pc.field('column("size")') == 1):
        assert chosen_rows(index.snapshot, where=where).tolist() == [False, True]
    with pytest.raises(ValueError, match=r"no field 'column\(\"id\"\)'; it has .*, column\(\"size\"\), width"):
        chosen_rows(index.snapshot, where='column("id") == 1')
