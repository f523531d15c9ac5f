"""Which parts of an image a PIR model relies on (its belief), and which texts it ranks first for it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from transformers import AutoModel

from ..hub_cards import installed  # noqa: F401  (registers our classes with AutoModel and AutoProcessor)
from ..modeling.towers import load_complete, load_errors
from ..processing.load_encoder import load_processor
from ..processing.scenes import open_any
from .belief_map import belief_grid, believed_boxes, overlay
from .contact_sheet import Row, Tile, contact_sheet, enlarged


@dataclass
class Explanation:
    """The belief of a model for one image, and the texts it ranks first."""

    picture: Image.Image  # the image, its belief map, the texts
    boxes: list[tuple[tuple[int, ...], float]]  # (left, top, right, bottom) in pixels, belief; highest first
    hits: list[tuple[str, float]]  # text, cosine; nearest first


def explain(
    source: str,
    image: str,
    texts: Sequence[str] = (),
    bands: Sequence[int] | None = None,
    top: int = 5,
    device: str | torch.device = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Explanation:
    """Draw the belief over an image and rank texts beside it.

    Args:
        source: folder or Hub id of a PIR model.
        image: path of a picture.
        texts: to score against it.
        bands: of a multi-band TIFF: red, green, blue, counted from 1.
        top: how many texts are kept.
        device: where the model runs.
        revision: commit, tag or branch of a Hub id.
        trust_remote_code: run the code that the repository brings.

    Raises:
        ValueError: a model that has no belief, or an image that does not decode.
    """
    loading = {"revision": revision, "trust_remote_code": trust_remote_code}
    picture = open_any(image, name=image, bands=bands)
    with load_errors(source):
        model = load_complete(AutoModel, source, **loading).eval().to(device)
    if not hasattr(model, "belief") or not model.config.use_instruction:
        raise ValueError(f"{source} has no belief: only PIR models with an instruction encoder do")
    with load_errors(source):
        processor = load_processor(source, **loading)
    pixels = processor(images=picture, return_tensors="pt")["pixel_values"].to(device)
    grid, hits = belief_grid(model, pixels)[0].cpu(), []
    if texts:
        scores = model.encode_text(texts, processor=processor) @ model.encode_image([picture], processor=processor)[0]
        best = torch.topk(scores, min(top, len(texts)))
        hits = [(texts[i], score) for i, score in zip(best.indices.tolist(), best.values.tolist())]
    tiles = [Tile(picture), Tile(overlay(enlarged(picture), grid))]
    drawn = contact_sheet([Row(tiles, [(text, score, None) for text, score in hits])])
    return Explanation(drawn, believed_boxes(grid, picture.size), hits)


__all__ = ["Explanation", "explain"]
