"""A folder in which the commands of the documents run as they are written: their names are tiny models and data."""

import json
import shutil
from pathlib import Path

import numpy as np
from dual_encoders import save_dual_encoder
from photos import paint, photograph
from PIL import Image
from rasters import write_raster
from small_runs import scene_rows

MODELS = "org/model org/name MODEL runs/mine/hub runs/other/hub runs/demo/hub".split()
PIR_MODELS = "runs/pir/hub runs/demo-pir/hub".split()
MOBILE = "google/mobilenet_v2_1.0_224 backbones/mobilenet_v2".split()
VISION = """google/vit-base-patch16-224-in21k microsoft/resnet-50 facebook/dinov2-base
microsoft/swin-tiny-patch4-window7-224""".split()
TEXT = "sentence-transformers/all-MiniLM-L6-v2 bert-base-uncased sentence-transformers/all-mpnet-base-v2".split()
DATA = "org/pairs org/flickr8k org/rsicd_aid SOURCE DATA".split()


def build(root: Path, tiny_folder, pir_folder, towers: tuple[Path, Path, Path]) -> Path:
    """Fill `root`: models under the names of the documents, pairs, pictures, a scene."""
    _copies(root, tiny_folder, MODELS)
    _copies(root, pir_folder, PIR_MODELS)
    _copies(root, towers[0], VISION)
    _copies(root, towers[1], MOBILE)
    _copies(root, towers[2], TEXT)
    (root / "openai/clip-vit-base-patch32").mkdir(parents=True)
    save_dual_encoder("clip", root / "openai/clip-vit-base-patch32")
    for name in DATA:
        (root / name).mkdir(parents=True)
        for place, split in enumerate(("train", "validation", "test")):
            scene_rows(18, place).to_parquet(str(root / name / f"{split}-00000-of-00001.parquet"))
    for name in ("train.parquet", "test.parquet"):
        shutil.copy(root / "org/pairs" / f"{name[:-8]}-00000-of-00001.parquet", root / name)
    for folder in ("photos", "photos/2024", "images", "runs/demo/gallery", "runs/demo-pir/gallery"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    names = "photos/1.jpg photos/17.jpg photos/2024/3.jpg query.jpg q.jpg airport.jpg a.jpg b.jpg"
    for seed, name in enumerate(names.split()):
        paint(root / name, seed)
    zurich = {1: "N", 2: (47.0, 22.0, 0.0), 3: "E", 4: (8.0, 32.0, 0.0)}
    photograph(root / "photos/2024/5.jpg", "2024:08:01 12:30:00", zurich)
    _with_texts(root / "photos")
    for number in range(300):
        paint(root / f"runs/demo/gallery/{number:04}.png", number)
    for number in range(64):
        view = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(view).save(root / f"runs/demo-pir/gallery/{number:04}.png")
    _annotations(root)
    values = np.random.default_rng(0).integers(0, 255, (512, 512, 4), np.uint8)
    write_raster(root / "scene.tif", values, tiled=True, blockxsize=256, blockysize=256)
    return root


def _with_texts(folder: Path):
    """Twenty more pictures, and the metadata that `datasets` reads of a folder of pictures."""
    for number in range(20):
        paint(folder / f"more/{number}.jpg", 100 + number)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    lines = [json.dumps({"file_name": name, "text": f"picture {number}"}) for number, name in enumerate(names)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def _copies(root: Path, source, names: list[str]):
    for name in names:
        shutil.copytree(source, root / name)
        (root / name / "README.md").write_text(f"# {name}\n")  # a card


def _annotations(root: Path):
    """Annotations in the layout of RSITMD: a json for each split, pictures named by their class."""
    for split in ("train", "val", "test"):
        rows = []
        for number in range(18):
            label = ("river", "field", "port")[number % 3]
            name = f"{label}_{split}{number}.jpg"
            paint(root / "images" / name, number)
            rows.append(
                {"image": name, "caption": [f"a {label}", f"a {label} with {number} boats"], "label_name": label}
            )
        (root / f"rsitmd_{split}.json").write_text(json.dumps(rows))
