"""No command line ends in a traceback, without an end, or in more than one line."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("fuzz_flags", Path(__file__).with_name("fuzz_flags.py"))
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)


@pytest.fixture(autouse=True)
def _errors_as_users_see_them(monkeypatch):
    monkeypatch.delenv("VSEHUB_TRACEBACK", raising=False)


@pytest.mark.parametrize(
    ("seed", "count"),
    [(1, 200), pytest.param(0, 5000, marks=pytest.mark.slow)],
)
def test_every_command_line_is_accepted_or_refused_in_one_line(seed, count, monkeypatch):
    found = fuzz.faults(seed, count, monkeypatch)
    assert not found, "\n".join(map(str, found[:20]))
    assert fuzz.ENDS["work begins"] > count / 20 and fuzz.ENDS["refused"] > count / 4


@pytest.mark.parametrize(
    ("end", "kind"),
    [(KeyError("a"), "traceback"), (SystemExit(1), "exit"), (fuzz.RunawayError(), "runaway"), (None, "status None")],
)
def test_each_kind_of_fault_is_seen(end, kind, monkeypatch):
    def fail(words):
        if end is not None:
            raise end

    monkeypatch.setattr(fuzz, "main", fail)
    assert fuzz.fault_of(["push"]).kind == kind


def test_a_second_line_is_a_fault(monkeypatch, capsys):
    def two_lines(words):
        print("vsehub push: a\nb", file=fuzz.sys.stderr)
        return 2

    monkeypatch.setattr(fuzz, "main", two_lines)
    assert fuzz.fault_of(["push"]).kind == "not one line"
