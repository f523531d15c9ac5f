"""How many planted copies `vsehub check-leakage` finds, and how often it cries wolf.

    python benchmarks/leakage.py --data $DATA/flickr8k

Plants a changed copy of each of the first N training images and looks for it among all training images (recall per
change), then compares the training with the validation images, which should share none.
"""

import argparse
import io
import time

import numpy as np
from PIL import Image, ImageOps

from vsehub.data.leakage import find_leaks, prints_of
from vsehub.data.rows import image_source
from vsehub.data.sources import read_source


def changes(rng) -> dict:
    """Name -> a function of an image: what copies go through."""

    def resized(image, share):
        return image.resize((max(8, round(image.width * share)), max(8, round(image.height * share))), Image.LANCZOS)

    def encoded(image, quality):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    turn = Image.Transpose
    return {
        "the same": lambda image: image,
        "resized to 50 %": lambda image: resized(image, 0.5),
        "resized to 200 %": lambda image: resized(image, 2.0),
        "stretched to a square of 96": lambda image: image.resize((96, 96), Image.BILINEAR),
        "JPEG 40": lambda image: encoded(image, 40),
        "JPEG 95": lambda image: encoded(image, 95),
        "turned by 90": lambda image: image.transpose(turn.ROTATE_90),
        "turned by 180": lambda image: image.transpose(turn.ROTATE_180),
        "turned by 270": lambda image: image.transpose(turn.ROTATE_270),
        "mirrored": ImageOps.mirror,
        "flipped": ImageOps.flip,
        "resized, JPEG, turned": lambda image: encoded(resized(image, rng.uniform(0.5, 1.5)), 60).transpose(
            turn.TRANSPOSE
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--count", type=int, default=1000)
    args = parser.parse_args()
    train, held_out = (read_source(args.data, split).select_columns(["image"]) for split in ("train", "validation"))
    start = time.time()
    gallery, others = prints_of(train, "train"), prints_of(held_out, "validation")
    looked = time.time() - start
    originals = [Image.open(io.BytesIO(image_source(train[row]["image"]))).convert("RGB") for row in range(args.count)]
    print(f"{args.data}: {len(train)} + {len(held_out)} images looked at in {looked:.0f} s; {gallery.flat} flat")
    for name, change in changes(np.random.default_rng(0)).items():
        rows = []
        for image in originals:
            buffer = io.BytesIO()
            change(image).save(buffer, "PNG")
            rows.append({"image": buffer.getvalue()})
        leaks = find_leaks(prints_of(rows, name), gallery)
        found = {leak.a_row for leak in leaks if leak.a_row == leak.b_row}
        wrong = len({leak.a_row for leak in leaks if leak.a_row != leak.b_row})
        print(f"{name:28} found {100 * len(found) / len(rows):6.2f} %   also paired with another image: {wrong}")
    start = time.time()
    leaks = find_leaks(others, gallery)
    shared = len({leak.a_row for leak in leaks})
    print(f"validation against train: {shared} of {len(held_out)} in {time.time() - start:.0f} s")
    for leak in leaks[:40]:
        print(f"  {leak.a_row} ~ {leak.b_row} {leak.kind}, {leak.transform}, {leak.correlation:.3f}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
