"""Decode JPEGs: Pillow, which `processing.pixels` uses, beside simplejpeg (libjpeg-turbo without Pillow).

    pip install --no-deps --target runs/peers/simplejpeg simplejpeg
    PYTHONPATH=runs/peers/simplejpeg python benchmarks/bench_decoders.py    # 96 generated photographs of 640 x 480

The sides take turns in one thread; medians. What counts is what the resizing gets: a picture of Pillow. Both give the
same pixels, which is asserted. The last side is what exact preprocessing costs after the decoding.
"""

import argparse
import io
import tempfile
from pathlib import Path

import numpy as np
import simplejpeg
import torch
from bench_images import photographs
from PIL import Image
from side_by_side import take_turns, timed

from vsehub.processing.processing_dual_encoder import square_image_processor


def by_pillow(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def by_simplejpeg(data: bytes) -> Image.Image:
    return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", fastdct=False, fastupsample=False))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", help="folder of JPEGs instead of generated ones")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = sorted(Path(args.images).rglob("*.jpg")) if args.images else photographs(Path(folder), args.count)
        files = [Path(path).read_bytes() for path in paths[: args.count]]
    for data in files:
        assert np.array_equal(np.asarray(by_pillow(data)), np.asarray(by_simplejpeg(data)))
    images, processor = [by_pillow(data) for data in files], square_image_processor(224)
    sides = {
        "Pillow": lambda: [by_pillow(data) for data in files],
        "simplejpeg": lambda: [by_simplejpeg(data) for data in files],
        "preprocessing after that": lambda: processor(images, return_tensors="pt"),
    }
    contenders = {name: (lambda work=work: timed(lambda: work() and None)) for name, work in sides.items()}
    results = take_turns(contenders, dict.fromkeys(sides, args.repeats))
    for name, result in results.items():
        print(f"{name}: {1000 * result['cpu']['median'] / len(files):.2f} ms of CPU time a picture")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
