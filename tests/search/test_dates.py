"""Dates as numbers: the order is that of the moments, whatever their precision and time zone."""

import pytest

from vsehub.search.dates import instant, instants

ORDER = """2023-12-31T23:30:00-02:00 2024-01-01T01:30:01Z 2024-01-01T03:30:01.5+02:00 2024-01-01T02:30:02
2024-06-01 2024-06-01T00:00:00.000001 2024-06-01T10:00+0900 2024-06-02 9999-12-31""".split()


def test_the_order_is_that_of_the_moments():
    moments = [instant(text)[0] for text in ORDER]
    assert moments == sorted(moments) and len(set(moments)) == len(ORDER)


def test_one_moment_has_one_number():
    same = ["2024-06-01", "2024-06", "2024-06-01 00:00", "2024-06-01T02:00:00.000+02:00", "2024-05-31T23:00-01"]
    assert len({instant(text)[0] for text in same}) == 1
    assert [instant(text)[1] for text in same] == [False, False, False, True, True]


@pytest.mark.parametrize("text", ["", "boat", "2024-02-31", "2024-6-1", "20240601", "10:00:00", "2024-06-01T25:00"])
def test_what_is_no_date_has_none(text):
    assert instant(text) is None


def test_a_column_is_one_of_dates_only_if_all_are():
    assert instants(["2024-06-01", None]) == ([instant("2024-06-01")[0], None], {False})
    assert instants(["2024-06-01", "boat"]) is None and instants([None]) is None and instants(["2024"]) is None
