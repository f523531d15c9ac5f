"""Belief as a grid over the image, as colours, and as boxes."""

import numpy as np
import pytest
import torch
from PIL import Image

from vsehub.plots.belief_map import STOPS, belief_grid, believed_boxes, overlay


def test_belief_becomes_a_grid_without_the_class_token(make_tiny_pir_model):
    model, pixels = make_tiny_pir_model(), torch.rand(2, 3, 32, 32)
    grid = belief_grid(model, pixels)
    assert grid.shape == (2, 4, 4) and (grid.sum((1, 2)) <= 1 + 1e-5).all()
    with torch.no_grad():
        assert torch.equal(grid[:, 1, 0], model.belief(pixels)[:, 5])  # the first token is the class's


def test_a_grid_has_the_shape_of_the_image():
    class Model:
        def belief(self, pixel_values):
            return torch.arange(1.0 + 32).expand(len(pixel_values), -1)

    assert belief_grid(Model(), torch.zeros(1, 3, 32, 64)).shape == (1, 4, 8)
    with pytest.raises(ValueError, match="32 tokens make no grid for 30 x 90 pixels"):
        belief_grid(Model(), torch.zeros(1, 3, 30, 90))


def test_the_most_believed_cells_are_named_in_pixels():
    grid = torch.zeros(2, 4)
    grid[1, 3] = 0.9
    assert believed_boxes(grid, (80, 40), 1) == [((60, 20, 80, 40), pytest.approx(0.9))]


def test_the_overlay_is_light_where_belief_is_and_dark_elsewhere():
    grid = torch.zeros(2, 2)
    grid[0, 1] = 1.0
    drawn = np.asarray(overlay(Image.new("RGB", (40, 40), "black"), grid, alpha=1.0), int)
    assert drawn.shape == (40, 40, 3)
    assert np.abs(drawn[0, 39] - STOPS[-1]).max() <= 1 and np.abs(drawn[39, 0] - STOPS[0]).max() <= 1
    flat = np.asarray(overlay(Image.new("RGB", (4, 4), "black"), torch.ones(2, 2), alpha=1.0))
    assert (flat == flat[0, 0]).all()
