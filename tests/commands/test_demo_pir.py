"""`vsehub demo-pir`: what reaches the demo, under either spelling, and what is printed of it."""


def test_the_demo(vsehub, vsehub_json, calls):
    demo = calls("vsehub.demos.demo_pir.demo", ("a table", {"prior_accuracy": 85.5}))
    assert vsehub("demo-pir", "--seed", "3") == "a table\n"
    assert vsehub_json("demo_pir", "--out", "here") == {"prior_accuracy": 85.5}
    assert vsehub("demo-pir", "--verbose") == "a table\n"
    assert [args for args, _ in demo] == [("runs/demo-pir", 3), ("here", 0), ("runs/demo-pir", 0)]
    assert [options["console"].verbose for _, options in demo] == [False, False, True]
