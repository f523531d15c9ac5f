"""`vsehub export`: what reaches `export_model`, and what is said of the result."""

NAME = "vsehub.hub_cards.conversion.export_onnx.export_model"


def test_onnx_reports_differences_and_bfloat16_cosines(vsehub, vsehub_json, calls):
    made = calls(NAME, {"visual": 1e-6, "textual": 2e-6})
    assert "largest difference from the model: visual 1.0e-06, textual 2.0e-06\nout" in vsehub("export", "hub", "out")
    assert vsehub_json("export", "hub", "--out", "o")["max_abs_difference"] == {"visual": 1e-6, "textual": 2e-6}
    calls(NAME, {"visual": 0.99999})
    words = ("export", "hub", "out", "--to", "transformers", "--dtype", "bf16")
    assert "mean cosine with float32: visual 0.99999" in vsehub(*words)
    assert vsehub_json(*words)["mean_cosine"] == {"visual": 0.99999}
    assert [args for args, _ in made] == [("hub", "out", "onnx", "float32"), ("hub", "o", "onnx", "float32")]


def test_either_name_of_a_dtype_is_taken_and_a_contradiction_refused(vsehub, calls):
    made = calls(NAME, {"visual": 1.0})
    for name in ("bf16", "bfloat16"):
        vsehub("export", "hub", "out", "--to", "transformers", "--dtype", name)
    assert {args[3] for args, _ in made} == {"bfloat16"}
    assert "add --to transformers" in vsehub("export", "hub", "out", "--dtype", "bf16", status=2)
    assert "argument --dtype: invalid choice" in vsehub("export", "hub", "out", "--dtype", "int3", status=2)


def test_models_of_others_are_refused(vsehub, dual_folder, tmp_path):
    said = vsehub("export", dual_folder("clip"), tmp_path / "out", status=2)
    assert "is a CLIPModel, and only models of vsehub (D2S-VSE, PIR) are exported" in said
    assert not (tmp_path / "out").exists()
