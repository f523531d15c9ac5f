"""`vsehub demo`: the demo or the comparison, what is printed of it, and who may speak meanwhile."""

import os


def test_the_demo_and_the_comparison(vsehub, vsehub_json, calls):
    demo = calls("vsehub.demos.demo.demo", ("a table", {"rsum": 1}))
    assert vsehub("demo", "--seed", "3") == "a table\n"
    assert vsehub_json("demo", "--out", "here") == {"rsum": 1}
    compare = calls("vsehub.demos.demo.compare", ("a verdict", {"gain": 2}))
    assert vsehub("demo", "--compare") == "a verdict\n"
    assert vsehub("demo", "--compare", "--seeds", "2") == "a verdict\n"
    assert [args for args, _ in demo] == [("runs/demo", 3), ("here", 0)]
    assert [args for args, _ in compare] == [("runs/demo", (0, 1, 2, 3, 4)), ("runs/demo", (0, 1))]
    assert "--seed: must be" in vsehub("demo", "--seed", "-1", status=2)
    assert "--seeds: must be" in vsehub("demo", "--compare", "--seeds", "1", status=2)


def test_libraries_are_silent_unless_asked_for(vsehub, monkeypatch):
    heard = []

    def demo(out, seed, console):
        heard.append((console.verbose, console.quiet, os.environ.get("HF_DATASETS_DISABLE_PROGRESS_BARS")))
        return "", {}

    monkeypatch.delenv("HF_DATASETS_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setattr("vsehub.demos.demo.demo", demo)
    for flags in ([], ["--verbose"], ["--quiet"]):
        vsehub("demo", *flags)
    assert heard == [(False, False, "1"), (True, False, None), (False, True, "1")]
