"""`vsehub demo`: the demo or the comparison, and what is printed of it."""


def test_the_demo_and_the_comparison(vsehub, vsehub_json, calls):
    demo, compare = calls("vsehub.demos.demo.demo", ("a table", {"rsum": 1})), None
    assert vsehub("demo", "--seed", "3") == "a table\n"
    assert vsehub_json("demo", "--out", "here") == {"rsum": 1}
    compare = calls("vsehub.demos.demo.compare", ("a verdict", {"gain": 2}))
    assert vsehub("demo", "--compare") == "a verdict\n"
    assert [args for args, _ in demo] == [("runs/demo", 3), ("here", 0)]
    assert compare == [(("runs/demo",), {"seeds": (0, 1, 2)})]
    assert "--seed: must be" in vsehub("demo", "--seed", "-1", status=2)
