import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vsehub.evaluation.calibration import calibrate_logit_scale


def world(noise, count=200, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(count, dim))
    texts = np.repeat(images, 2, 0) + noise * rng.normal(size=(2 * count, dim))
    return (*(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (images, texts)), np.repeat(np.arange(count), 2))


def test_the_factor_is_at_the_bottom_of_the_valley():
    """One caption per image and as many candidates as images: the softmax over all of them, searched on a grid."""
    images, texts, _ = world(0.8)
    found = calibrate_logit_scale(images, texts[::2], np.arange(200), candidates=200)
    cosines = torch.tensor(images @ texts[::2].T)
    grid = np.exp(np.linspace(0, np.log(200), 2000))
    costs = [float(F.cross_entropy(cosines * scale, torch.arange(200))) for scale in grid]
    assert found == pytest.approx(grid[np.argmin(costs)], rel=0.003)


def test_clearer_pairs_may_be_surer():
    noisy, clear = (calibrate_logit_scale(*world(noise)) for noise in (2.0, 0.3))
    assert 1 <= noisy < clear <= 200


def test_one_image_has_no_rival():
    assert calibrate_logit_scale(np.ones((1, 2)), np.ones((3, 2)), [0, 0, 0]) == 1.0


def test_the_default_device_changes_nothing():
    """`meta` stands for a GPU: its tensors cannot be mixed with those of the CPU, either."""
    with torch.device("meta"):
        found = calibrate_logit_scale(*world(0.8))
    assert found == calibrate_logit_scale(*world(0.8))


def test_nan_and_owners_that_do_not_fit_are_no_factor():
    images, texts, owners = world(0.8)
    with pytest.raises(ValueError, match="399 rows for 400 texts"):
        calibrate_logit_scale(images, texts, owners[:-1])
    images[3, 0] = np.nan
    with pytest.raises(ValueError, match=r"image: .* rows \[3\]"):
        calibrate_logit_scale(images, texts, owners)


def test_half_precision_is_read():
    images, texts, owners = world(0.8)
    halves = [torch.tensor(side).bfloat16() for side in (images, texts)]
    assert calibrate_logit_scale(*halves, owners) == pytest.approx(
        calibrate_logit_scale(images, texts, owners), rel=0.02
    )
