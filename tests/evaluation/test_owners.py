"""Owners of texts: what is taken, and what is refused."""

import numpy as np
import pytest
import torch

from vsehub.evaluation.owners import checked_owners


@pytest.mark.parametrize("form", [list, np.array, torch.tensor, lambda rows: np.array(rows, np.uint8)])
def test_whole_numbers_of_any_kind_are_owners(form):
    owners = checked_owners(form([1, 0, 1]), 2, 3)
    assert owners.tolist() == [1, 0, 1] and owners.dtype == np.int64


@pytest.mark.parametrize("owner", [-1, 2, 0.5, float("nan")])
def test_an_owner_that_is_no_image_is_named_by_its_text(owner):
    with pytest.raises(ValueError, match=r"texts \[1\] is no row of an image: there are 2, counted from 0"):
        checked_owners([0, owner, 1], 2, 3)


def test_every_text_has_an_owner():
    with pytest.raises(ValueError, match="2 rows for 3 texts: name the image of each text"):
        checked_owners([0, 1], 2, 3)
