"""`vsehub explain MODEL IMAGE`: which parts of an overhead image PIR believes, and which texts it finds for it."""

import argparse
from pathlib import Path

import torch
from transformers import AutoModel, AutoProcessor

from ..modeling.towers import weights_of
from ..plots.belief_map import belief_grid, believed_boxes, sheet
from ..processing.scenes import open_any


def main(argv: list[str] | None = None) -> int:
    """Draw the belief over the image and rank the given texts beside it.

    Raises:
        ValueError: a model that has no belief, or an image that does not decode.
    """
    parser = argparse.ArgumentParser("vsehub explain", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub id of a PIR model")
    parser.add_argument("image", help="a picture")
    parser.add_argument("--text", action="append", default=[], help="a text to score against it; again for more")
    parser.add_argument("--bands", type=int, nargs=3, help="of a multi-band TIFF: red, green, blue, counted from 1")
    parser.add_argument("--texts", help="a file of texts, one a line")
    parser.add_argument("--top", type=int, default=5, help="how many texts are drawn (default: %(default)s)")
    parser.add_argument("--out", default="explain.png", help="where the picture goes (default: %(default)s)")
    args = parser.parse_args(argv)
    image = open_any(args.image, name=args.image, bands=args.bands)
    with weights_of(args.model):
        model = AutoModel.from_pretrained(args.model).eval()
    if not hasattr(model, "belief") or not model.config.use_instruction:
        raise ValueError(f"{args.model} has no belief: only PIR models with an instruction encoder do")
    processor = AutoProcessor.from_pretrained(args.model)
    grid = belief_grid(model, processor(images=image, return_tensors="pt")["pixel_values"])[0]
    lines = Path(args.texts).read_text(encoding="utf-8").split("\n") if args.texts else []
    texts = [text for text in (*args.text, *lines) if text.strip()]
    hits = []
    if texts:
        scores = model.encode_text(texts, processor=processor) @ model.encode_image([image], processor=processor)[0]
        best = torch.topk(scores, min(args.top, len(texts)))
        hits = [(texts[i], score, None) for i, score in zip(best.indices.tolist(), best.values.tolist())]
    sheet([(image, grid, hits)]).save(args.out)
    for box, belief in believed_boxes(grid, image.size):
        print(f"belief {belief:.3f} at pixels {box}")
    for text, score, _ in hits:
        print(f"{score:7.3f}  {text}")
    print(f"picture: {args.out}")
    return 0
