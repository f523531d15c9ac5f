"""Tables for a terminal: every number in its column."""

import re

import pytest

from vsehub.evaluation.tables import further_lines, protocol_table, table

WAYS = ("image_to_text", "text_to_image")


def metrics(first=10.0):
    """Recalls of six different numbers, and their sums."""
    names = [f"{way}_recall@{k}" for way in WAYS for k in (1, 5, 10)]
    found = {name: first + place for place, name in enumerate(names)}
    return found | {"rsum": sum(found.values()), "mean_recall": sum(found.values()) / 6}


def numbers(line):
    return re.findall(r"-?\d+\.\d+|nan", line)


def test_a_row_has_the_recalls_both_ways_their_sum_and_mean():
    lines = table({"ours": metrics(), "theirs": metrics(40.0) | {"seconds": 12.4}}).splitlines()
    assert len(lines) == 4 and "image to text" in lines[0] and lines[1].count("R@10") == 2
    assert numbers(lines[2]) == "10.0 11.0 12.0 13.0 14.0 15.0 75.0 12.50".split()
    assert lines[2].startswith("ours ") and lines[3].endswith("12s")
    assert lines[2].index("75.0") == lines[3].index("255.0") + 1  # columns are right-aligned


def test_what_goes_beyond_is_told_only_if_it_is_there():
    assert further_lines(metrics()) == []
    twice = {f"duplicate_aware_{name}": value for name, value in metrics(50.0).items()}
    (line,) = further_lines(metrics() | twice)
    assert line.startswith("identical captions count")
    assert numbers(line) == "50.0 51.0 52.0 53.0 54.0 55.0 52.50".split()


def test_precision_at_a_depth_that_the_gallery_lacks_is_no_number():
    (line,) = further_lines({f"scene_{way}_precision@{k}": 20.0 + k for way in WAYS for k in (1, 5)})
    assert line.startswith("same scene class") and numbers(line) == "21.0 25.0 nan 21.0 25.0 nan".split()


def test_graded_tasks_have_a_line_each():
    found = {f"{task}_ndcg@{k}": float(k) for task in ("image_to_image", "text_to_mixed") for k in (10, 20, 50)}
    first, second = further_lines(found)
    assert first.startswith("image to image") and second.startswith("text to mixed")
    assert numbers(first) == numbers(second) == "10.0 20.0 50.0".split()


@pytest.mark.parametrize("level", [0.95, 0.9])
def test_protocols_list_every_metric_with_its_interval(level):
    part = {"metrics": {"rsum": 75.0, "median": 3.0}, "intervals": {"rsum": [70.1, 80.25]}}
    lines = protocol_table({"protocols": {"coco-5k": part}, "intervals": {"level": level}}).splitlines()
    assert lines[0].startswith("coco-5k: 5,000 images")
    assert lines[1].split() == ["rsum", "75.00", "[70.10,", "80.25]"] and lines[2].split() == ["median", "3.00"]
    assert lines[3] == f"in brackets: {100 * level:g} % bootstrap intervals over images"
