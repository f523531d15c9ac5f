"""Explain test images in a process that cannot import vsehub: `demo_belief.py HUB GALLERY OUT.png`.

For each image: its belief map, and the five captions that are nearest to it; captions of its class are marked green.
The folder `plots/` is on the path.
"""

import json
import sys
from pathlib import Path

import torch
from belief_map import belief_grid, overlay  # of plots/
from contact_sheet import Row, Tile, contact_sheet, enlarged  # of plots/
from demo_search import Forbidden  # beside this file
from PIL import Image


def explain(hub: str, gallery: str, out: str) -> int:
    """Load, embed, retrieve, draw; print how much of the belief lies on the objects."""
    sys.meta_path.insert(0, Forbidden())
    from transformers import AutoModel, AutoProcessor

    scenes = json.loads((Path(gallery) / "scenes.json").read_text())
    images = [Image.open(Path(gallery) / scene["file"], formats=["PNG"]).convert("RGB") for scene in scenes]
    model = AutoModel.from_pretrained(hub, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(hub, trust_remote_code=True)
    print(f"loaded {type(model).__name__} from {type(model).__module__.split('.')[0]}, without vsehub")
    owners = {caption: scene["label"] for scene in scenes for caption in scene["captions"]}
    texts = sorted(owners)
    grids = belief_grid(model, processor(images=images, return_tensors="pt")["pixel_values"])
    masks = torch.tensor([scene["objects"] for scene in scenes], dtype=grids.dtype)
    share = (grids * masks).sum((1, 2)) / grids.sum((1, 2))
    print(f"belief on the objects: {100 * share.mean():.0f} %; they cover {100 * masks.mean():.0f} % of the picture")
    chosen = [next(i for i, scene in enumerate(scenes) if scene["label"] == label) for label in _some_labels(scenes)]
    scores = (
        model.encode_image([images[i] for i in chosen], processor=processor)
        @ model.encode_text(texts, processor=processor).t()
    )
    rows = []
    for number, i in enumerate(chosen):
        best = scores[number].topk(5)
        hits = [
            (texts[j], score, owners[texts[j]] == scenes[i]["label"])
            for j, score in zip(best.indices.tolist(), best.values.tolist())
        ]
        print(f"{scenes[i]['label']}: {hits[0][0]!r} first, {sum(right for *_, right in hits)} of 5 of its class")
        rows.append(Row([Tile(images[i]), Tile(overlay(enlarged(images[i]), grids[i]))], hits))
    contact_sheet(rows).save(out)
    return 0


def _some_labels(scenes) -> list[str]:
    return list(dict.fromkeys(scene["label"] for scene in scenes))[:6]


if __name__ == "__main__":
    sys.exit(explain(*sys.argv[1:]))
