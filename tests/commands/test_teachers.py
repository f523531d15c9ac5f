"""`vsehub teachers`: what reaches `write_teachers`, and the rows that are counted."""

import pytest
import torch

NAME = "vsehub.training.teachers.write_teachers"


def test_flags_reach_the_library(vsehub, vsehub_json, calls, tmp_path):
    made = calls(NAME, {"train": 8, "validation": 2})
    words = ("teachers", "org/pairs", "--image", "i", "--text", "t", "--out", tmp_path, "--device", "cpu")
    said = vsehub(*words, "--split", "train", "test", "--train-teachers", "2", "--image_column", "picture")
    assert said == f"train: 8 rows in {tmp_path}\nvalidation: 2 rows in {tmp_path}\n"
    data, options = made[0][0]
    assert (data.data, data.image_column) == ("org/pairs", "picture")
    assert (options.splits, options.train_teachers, options.device) == (["train", "test"], 2, torch.device("cpu"))
    assert vsehub_json(*words) == {"out": str(tmp_path), "rows": {"train": 8, "validation": 2}}
    assert made[1][0][1].splits == ["train"] and made[1][0][1].train_teachers == 0


def test_what_is_out_of_range_is_one_line(vsehub, calls):
    made = calls(NAME, {})
    words = ("teachers", "org/pairs", "--image", "i", "--text", "t")
    for flag, value in (("--views", 0), ("--batch_size", -1), ("--temperature", "nan"), ("--learning_rate", 0)):
        assert f"argument {flag}: must be" in vsehub(*words, "--out", "o", flag, value, status=2)
    assert "required: --out" in vsehub(*words, status=2) and made == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--vision i --learning_rate 0.1", "--learning_rate 0.1 has no effect without --train_teachers: add that"),
        ("--text t --views 2", "--views 2 has no effect without --vision"),
        ("--vision i --image_augmentation rand_augment", "rand_augment has no effect beside --views 1"),
        (
            "--vision captions --text t --train_teachers 1 --image_augmentation rand_augment",
            "rand_augment has no effect beside --views 1",
        ),
    ],
)
def test_a_flag_without_effect_is_refused(vsehub, calls, flags, said):
    assert said in vsehub("teachers", "org/pairs", "--out", "o", *flags.split(), status=2)
    calls(NAME, {})
    vsehub(*"teachers d --out o --vision i --train_teachers 1 --seed 3 --image_augmentation rand_augment".split())
