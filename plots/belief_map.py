"""Draw the belief of PIR over an image: which tokens the instruction selects.

Needs Pillow, numpy, torch and a model, not vsehub: the demo draws with it in a process that cannot import vsehub.
"""

import numpy as np
import torch
from PIL import Image

STOPS = np.array([[12, 8, 80], [120, 28, 109], [237, 105, 37], [252, 255, 164]], float)  # dark to light


@torch.no_grad()
def belief_grid(model, pixel_values: torch.Tensor) -> torch.Tensor:
    """The belief of the patches, without the class token: (B, 3, H, W) to (B, h, w).

    Raises:
        ValueError: the tokens make no grid of the image's shape.
    """
    belief = model.belief(pixel_values)[:, 1:]
    count, (height, width) = belief.shape[1], pixel_values.shape[-2:]
    rows = round((count * height / width) ** 0.5)
    if rows == 0 or count % rows:
        raise ValueError(f"{count} tokens make no grid for {height} x {width} pixels")
    return belief.unflatten(1, (rows, count // rows))


def overlay(image: Image.Image, grid: torch.Tensor, alpha: float = 0.55) -> Image.Image:
    """Lay a belief map (h, w) over an image; dark is least, light is most.

    Belief is a softmax of unscaled products and often sits on one cell: its fourth root is drawn.
    """
    values = np.asarray(grid, np.float32) ** 0.25
    spread = float(values.max() - values.min()) or 1.0
    heat = Image.fromarray(np.uint8(255 * (values - values.min()) / spread)).resize(
        image.size, Image.Resampling.BICUBIC
    )
    places = np.asarray(heat) / 255 * (len(STOPS) - 1)
    channels = [np.interp(places, range(len(STOPS)), STOPS[:, channel]) for channel in range(3)]
    return Image.blend(image.convert("RGB"), Image.fromarray(np.stack(channels, -1).astype(np.uint8)), alpha)


def believed_boxes(grid: torch.Tensor, size: tuple[int, int], count: int = 5) -> list[tuple[tuple[int, ...], float]]:
    """Cells of highest belief as pixel boxes (left, top, right, bottom) of an image of `size` (w, h), and belief."""
    rows, columns = grid.shape
    boxes = []
    for place in grid.flatten().argsort(descending=True)[:count].tolist():
        row, column = divmod(place, columns)
        edges = (column * size[0] / columns, row * size[1] / rows)
        edges += ((column + 1) * size[0] / columns, (row + 1) * size[1] / rows)
        boxes.append((tuple(round(edge) for edge in edges), float(grid[row, column])))
    return boxes


__all__ = ["belief_grid", "believed_boxes", "overlay"]
