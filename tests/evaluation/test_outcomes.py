"""What the queries came to, as metrics: means, medians and sums by hand."""

import numpy as np
import pytest

from vsehub.evaluation.outcomes import Outcomes


@pytest.fixture
def outcomes():
    values = {
        "image_to_text_recall@1": np.array([100.0, 0.0, 50.0]),
        "text_to_image_recall@1": np.array([0.0, 0.0, 100.0, 100.0]),
        "image_to_text_median_rank": np.array([1.0, 2.0, 9.0]),
        "duplicate_aware_text_to_image_recall@1": np.array([0.0, 100.0, 100.0, 100.0]),
    }
    images = {"image_to_text": np.arange(3), "text_to_image": np.array([0, 0, 1, 2])}
    parts = ["image_to_text_recall@1", "text_to_image_recall@1"]
    return Outcomes(values, images, {"rsum": parts, "mean_recall": parts})


def test_metrics_are_means_medians_and_sums(outcomes):
    assert outcomes.metrics() == {
        "image_to_text_recall@1": 50.0,
        "text_to_image_recall@1": 50.0,
        "image_to_text_median_rank": 2.0,
        "duplicate_aware_text_to_image_recall@1": 75.0,
        "rsum": 100.0,
        "mean_recall": 50.0,
    }


def test_a_sum_weighs_its_parts_one_and_a_mean_one_over_their_number(outcomes):
    assert {name: weight for name, (_, weight) in outcomes.weighted()} == {"rsum": 1.0, "mean_recall": 0.5}


def test_a_metric_knows_the_images_of_its_queries_whatever_stands_before_its_way(outcomes):
    assert outcomes.images_of("image_to_text_recall@1").tolist() == [0, 1, 2]
    assert outcomes.images_of("duplicate_aware_text_to_image_recall@1").tolist() == [0, 0, 1, 2]


def test_nothing_is_shared_between_two_of_them():
    Outcomes().values["x"] = np.zeros(1)
    assert Outcomes().values == {} and Outcomes().metrics() == {}
