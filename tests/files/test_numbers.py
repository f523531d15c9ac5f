"""Types of numbers: bounds, and what is shown of a value that is out of them."""

import argparse

import pytest

from vsehub.files import numbers


@pytest.mark.parametrize(
    ("kind", "good", "bad", "expected"),
    [
        (numbers.whole(2, 5), ["2", "5"], ["1", "6", "2.5", "1e0"], "a whole number from 2 to 5"),
        (numbers.positive_int, ["1", "2147483647"], ["0", "2147483648", "nan"], "a whole number of at least 1"),
        (numbers.fraction, ["0", "1", "1e-30"], ["-1e-9", "1.1", "nan", "inf"], "a number from 0 to 1"),
        (numbers.rate, ["0", "0.99"], ["1", "-0.1"], "a number of at least 0 and below 1"),
        (numbers.inner_fraction, ["0.5"], ["0", "1"], "a number above 0 and below 1"),
        (numbers.positive_float, ["1e-30", "1e30"], ["0", "1e400", "nan"], "a number above 0"),
        (numbers.number(above=0, most=1), ["1", "0.1"], ["0", "1.1"], "a number of at most 1 and above 0"),
        (numbers.finite, ["-7", "0"], ["inf", "-inf", "nan", "x", ""], "a number"),
        (numbers.seed, ["0", "4294967295"], ["-1", "4294967296"], "a whole number from 0 to 4294967295"),
    ],
)
def test_bounds(kind, good, bad, expected):
    assert [kind(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^must be {expected}, not {text}$"):
            kind(text)


def test_a_long_value_is_not_repeated_whole():
    with pytest.raises(argparse.ArgumentTypeError, match=r", not 9{40}\.\.\.$"):
        numbers.positive_int("9" * 5000)
