"""Explain test images in a process that cannot import vsehub: `demo_belief.py HUB GALLERY OUT.png`.

`OUT.png` shows one image of each class, its belief map, and the five captions that are nearest to it; a caption is
green if it is true of the picture. `OUT.json` says for each class how often the belief peaks on what makes the class.
The folder `plots/` is on the path.
"""

import json
import sys
from pathlib import Path

import torch
from belief_map import belief_grid, overlay  # of plots/
from contact_sheet import Row, Tile, contact_sheet, enlarged, outlined  # of plots/
from demo_search import Forbidden  # beside this file
from PIL import Image

LEGEND = """belief map: dark is low, light is high; white outline: what makes the class; cross: the highest belief
captions, nearest first, with their cosines; green: true of the picture; grey: not"""


def explain(hub: str, gallery: str, out: str) -> int:
    """Load, embed, retrieve, draw; print for each class where the belief lies."""
    sys.meta_path.insert(0, Forbidden())
    from transformers import AutoModel, AutoProcessor

    scenes = json.loads((Path(gallery) / "scenes.json").read_text())
    images = [Image.open(Path(gallery) / scene["file"], formats=["PNG"]).convert("RGB") for scene in scenes]
    model = AutoModel.from_pretrained(hub, trust_remote_code=True).eval()
    processor = AutoProcessor.from_pretrained(hub, trust_remote_code=True)
    print(f"loaded {type(model).__name__} from {type(model).__module__.split('.')[0]}, without vsehub")
    texts = sorted({caption for scene in scenes for caption in scene["captions"]})
    grids = belief_grid(model, processor(images=images, return_tensors="pt")["pixel_values"])
    figures = belief_figures(grids, scenes)
    Path(out).with_suffix(".json").write_text(json.dumps(figures, indent=2))
    for label, of_class in figures.items():
        print(
            f"{label}: {of_class['peak']:.0f} % of the maps peak on the objects, which hold {of_class['belief']:.0f} % "
            f"of the belief and cover {of_class['area']:.0f} % of the picture"
        )
    chosen = [next(i for i, scene in enumerate(scenes) if scene["label"] == label) for label in figures]
    image_embeds = model.encode_image([images[i] for i in chosen], processor=processor)
    nearest = (image_embeds @ model.encode_text(texts, processor=processor).t()).topk(min(5, len(texts)))
    rows = []
    for i, values, indices in zip(chosen, nearest.values.tolist(), nearest.indices.tolist()):
        true = set(scenes[i]["true"])
        hits = [(texts[j], score, texts[j] in true) for j, score in zip(indices, values)]
        print(f"{scenes[i]['label']}: {hits[0][0]!r} first, {sum(right for *_, right in hits)} of {len(hits)} are true")
        peak = divmod(int(grids[i].flatten().argmax()), grids.shape[2])
        seen = outlined(overlay(enlarged(images[i]), grids[i]), scenes[i]["objects"], peak)
        rows.append(Row([Tile(images[i], scenes[i]["label"]), Tile(seen)], hits))
    contact_sheet(rows, LEGEND).save(out)
    return 0


def belief_figures(grids: torch.Tensor, scenes: list[dict]) -> dict[str, dict]:
    """For each class, in per cent: maps that peak on the objects, belief on them, and the area that they cover.

    The area is what a map without knowledge would reach.

    Args:
        grids: belief maps (B, h, w).
        scenes: of the same images: `label`, and `objects`, which cells (h, w) show what makes the class.
    """
    masks = torch.tensor([scene["objects"] for scene in scenes], dtype=grids.dtype).flatten(1)
    beliefs = grids.flatten(1)
    parts = {
        "peak": masks.gather(1, beliefs.argmax(1, keepdim=True))[:, 0],
        "belief": (beliefs * masks).sum(1) / beliefs.sum(1),
        "area": masks.mean(1),
    }
    figures = {}
    for label in dict.fromkeys(scene["label"] for scene in scenes):
        own = torch.tensor([scene["label"] == label for scene in scenes])
        figures[label] = {name: 100 * float(values[own].mean()) for name, values in parts.items()}
        figures[label]["maps"] = int(own.sum())
    return figures


if __name__ == "__main__":
    sys.exit(explain(*sys.argv[1:]))
