"""`vsehub convert d2s-vse`: what reaches the converter, and what is said of the result."""

import json

from vsehub.__main__ import main

REPORT = {
    "source": "model_best.pth",
    "sha256": "0123456789abcdef",
    "part": "stage 2",
    "tensors": 7,
    "parameters": 1234,
    "image_size": 384,
    "image_size_from": "--image_size",
    "dropped": {"long_txt_enc.*": 3},
    "written": ["out", "teacher"],
    "processor": False,
    "warnings": ["image size 224 may be nominal"],
}
NAME = "vsehub.hub_cards.conversion.convert_d2s_vse.convert"


def test_flags_reach_the_converter_in_either_spelling(vsehub, calls):
    made = calls(NAME, REPORT)
    for dash in "-_":
        words = (f"--image{dash}size", "384", f"--teacher{dash}out", "teacher", f"--vision{dash}config", "v.json")
        said = vsehub("convert", "d2s-vse", "model_best.pth", "out", *words)
    assert made[0] == made[1]
    assert made[0][0] == ("model_best.pth", "out")
    expected = {"image_size": 384, "teacher_out": "teacher", "vision_config": "v.json"}
    assert made[0][1] == {**expected, "text_config": None, "tokenizer": None}
    assert "stage 2, 7 tensors, 1,234 parameters" in said and "left out long_txt_enc.* (3)" in said
    assert "wrote out\nwrote teacher\nno --tokenizer" in said


def test_warnings_are_remarks_and_json_holds_all(vsehub_json, calls, capsys):
    calls(NAME, REPORT)
    assert main(["convert", "d2s-vse", "a.pth", "out"]) == 0
    said = capsys.readouterr()
    assert "warning: image size 224" in said.err and "warning" not in said.out
    assert vsehub_json("convert", "d2s-vse", "a.pth", "out") == json.loads(json.dumps(REPORT))


def test_a_size_that_is_none_is_refused_at_once(vsehub):
    assert "--image_size: must be" in vsehub("convert", "d2s-vse", "a.pth", "out", "--image_size", "0", status=2)
