"""Ground truths of COCO as pairs of rows, against loops, and every refusal."""

import json

import numpy as np
import pytest

from vsehub.evaluation.ground_truth import OUTSIDE, GroundTruth, coco_id, read_ground_truth


@pytest.fixture
def folder(tmp_path):
    """Three images, 100, 101, 102, of two captions each, 1000 ... 1005, in an order of its own."""
    np.save(tmp_path / "coco_test_ids.npy", np.array([1001, 1000, 1004, 1005, 1003, 1002]))
    own = {1000: [100], 1001: [100], 1002: [101], 1003: [101], 1004: [102], 1005: [102]}
    more = {1000: [100, 102], 1002: [101]}
    back = {100: [1000, 1005], 101: [1002, 77]}
    for name, content in (
        ("original_caption_to_image", own),
        ("cxc_caption_to_image", more),
        ("cxc_image_to_caption", back),
    ):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_pairs_are_rows_of_embeddings_by_the_order_of_the_test_set(folder):
    truth = read_ground_truth("cxc", folder)
    assert truth.own == {100: [1001, 1000], 102: [1004, 1005], 101: [1003, 1002]}
    pairs = truth.pairs(["c_102.jpg", "c_100.jpg", "c_101.jpg"], [0, 0, 1, 1, 2, 2])
    # captions are rows 1004 1005 | 1001 1000 | 1003 1002, images rows 102 100 101
    assert pairs["image_to_text"].T.tolist() == [[1, 1], [1, 3], [2, OUTSIDE], [2, 5]]
    assert pairs["text_to_image"].T.tolist() == [[3, 0], [3, 1], [5, 2]]


def test_caption_ids_say_which_caption_is_which(folder):
    truth = read_ground_truth("cxc", folder)
    pairs = truth.pairs([100, 101, 102], [0, 0, 1, 1, 2, 2], [1000, 1001, 1002, 1003, 1004, 1005])
    assert pairs["image_to_text"].T.tolist() == [[0, 0], [0, 5], [1, OUTSIDE], [1, 2]]
    assert pairs["text_to_image"].T.tolist() == [[0, 0], [0, 2], [2, 1]]


def test_other_images_and_lost_captions_are_named(folder):
    truth = read_ground_truth("cxc", folder)
    with pytest.raises(ValueError, match=r"1 are missing \[102\], 1 are others \[7\]"):
        truth.pairs([100, 101, 7], [0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match=r"captions of the ground truth are missing, COCO ids \[1005\]"):
        truth.pairs([100, 101, 102], [0, 0, 1, 1, 2, 2], [1000, 1001, 1002, 1003, 1004, 9])
    with pytest.raises(ValueError, match="6 texts have 5 ids; each needs its own"):
        truth.pairs([100, 101, 102], [0, 0, 1, 1, 2, 2], [1000, 1001, 1002, 1003, 1004, 1004])
    assert isinstance(truth, GroundTruth)


def test_an_item_that_a_list_names_twice_is_one_positive(folder):
    truth = read_ground_truth("cxc", folder)
    twice = GroundTruth(
        {way: {query: items * 2 for query, items in lists.items()} for way, lists in truth.positives.items()}, truth.own
    )
    for way, pairs in truth.pairs([100, 101, 102], [0, 0, 1, 1, 2, 2]).items():
        assert np.array_equal(twice.pairs([100, 101, 102], [0, 0, 1, 1, 2, 2])[way], pairs)


@pytest.mark.parametrize(
    ("name", "number"), [("COCO_val2014_000000391895.jpg", 391895), (391895, 391895), ("7", 7), ("a12/b003.PNG", 3)]
)
def test_a_coco_id_is_the_number_at_the_end_of_a_name(name, number):
    assert coco_id(name) == number


@pytest.mark.parametrize("name", ["dog", "12_dog", "", "3.tar.gz"])
def test_a_name_without_a_number_at_its_end_is_no_coco_id(name):
    with pytest.raises(ValueError, match="does not end in a COCO id"):
        coco_id(name)


def test_a_missing_or_broken_ground_truth_is_named(tmp_path, folder, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no ground truth there"):
        read_ground_truth("cxc", tmp_path / "nowhere")
    (folder / "cxc_image_to_caption.json").write_text('{"1": ')
    with pytest.raises(ValueError, match="cxc_image_to_caption.json: not a ground truth"):
        read_ground_truth("cxc", folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="vsehub\\[eccv\\]"):
        read_ground_truth("cxc")
