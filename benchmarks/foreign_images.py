"""Read corpora of foreign images, compare with rasterio and Pillow: `python benchmarks/foreign_images.py FOLDER ...`.

Each folder is walked as `vsehub index` walks it. Of every picture are compared: the whole with its tiles and boxes, the
whole with an independent reading (below; bands of more than 8 bits stretched between their percentiles), and the
outline of its four corners with rasterio's. Corpora: image-rs/image-tiff (`tests/`), rasterio (`tests/data/`). Prints a
table and every difference; the exit status is 1 if a line of the table is not met.
"""

import argparse
import json
import sys
import traceback
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import rasterio
from PIL import Image
from rasterio.warp import transform
from tqdm.auto import tqdm

from vsehub.data.folders import list_folder
from vsehub.processing.pixels import BadImageError
from vsehub.processing.places import NoPlaceError, Place
from vsehub.processing.scenes import is_scene, open_any, read_box, read_tiles

LEVELS, DEGREES, PIXELS = 3, 1e-6, 0.01
TILES = "scenes whose tiles and boxes are the whole"
NEAR = f"read by both, within {LEVELS} grey levels"
PLACED = f"georeferenced, corners within {DEGREES} degrees and {PIXELS} pixels, or told why not"
warnings.simplefilter("ignore")


def expected(path):
    """What a picture should look like (H, W, 3), read without vsehub; None where neither library reads it."""
    try:
        with rasterio.open(path) as file:
            return _from_rasterio(file)
    except (rasterio.errors.RasterioError, ValueError):
        pass
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).astype(int)
    except Exception:  # each of its decoders raises its own kinds
        return None


def _from_rasterio(file):
    names = [colour.name for colour in file.colorinterp]
    order = [names.index(name) for name in ("red", "green", "blue")] if {"red", "green", "blue"} <= {*names} else None
    plain = [band for band, name in enumerate(names) if name != "alpha"]
    order = order or (plain[:3] if len(plain) >= 3 else plain[:1])
    values = file.read([band + 1 for band in order])
    values = np.abs(values) if np.iscomplexobj(values) else values
    valid = np.isfinite(values.astype(float))
    if "alpha" not in names:
        valid &= file.read_masks([band + 1 for band in order]) > 0
    bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", values.dtype.itemsize * 8))
    inverted = file.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
    if names[0] == "cyan":
        ink = file.read().astype(float) / (2.0**bits - 1 if values.dtype.kind == "u" else 1)
        values, valid, bits = (1 - ink[:3]) * (1 - ink[3:]), np.ones((3, file.height, file.width), bool), 64
    if names[0] == "palette" and not inverted:
        colours = file.colormap(1)
        table = np.array([colours.get(number, (0, 0, 0, 0)) for number in range(max(colours) + 1)])
        shown = np.moveaxis(table[values[0]][..., :3], -1, 0).astype(float)
    elif values.dtype.kind in "iu" and bits <= 8:
        shown = (values.astype(float) + (128 if values.dtype.kind == "i" else 0)) * 255 / (2**bits - 1)
        shown = 255 - shown if inverted else shown
    else:
        shown = np.stack([_stretched(-v if inverted else v, k) for v, k in zip(values.astype(float), valid)])
    if "alpha" in names:
        opacity = file.read(names.index("alpha") + 1) / (255 if file.dtypes[0] == "uint8" else 65535)
        shown = shown * (1 if _associated(file.name) else opacity) + 255 * (1 - opacity)
    else:
        shown = np.where(valid.any(0), shown, 0)
    return np.broadcast_to(np.moveaxis(shown, 0, -1), (file.height, file.width, 3)).clip(0, 255).round().astype(int)


def _stretched(numbers, known):
    low, high = np.percentile(numbers[known], (2, 98)) if known.any() else (0, 1)
    with np.errstate(all="ignore"):
        shown = np.nan_to_num(((numbers - low) / max(high - low, 1e-300) * 255).clip(0, 255))
    return np.where(known, shown, 0)


def _associated(path) -> bool:
    """Whether a TIFF's colours are premultiplied, as Pillow reads the tag."""
    try:
        with Image.open(path) as image:
            return image.tag_v2.get(338) == (1,)
    except Exception:
        return False


def compare(path, counts: Counter, told: list):
    """Compare one picture; what differs is told."""
    try:
        whole = np.asarray(open_any(path)).astype(int)
    except BadImageError as error:
        counts["listed"] += 1
        told += [] if Path(path).name in str(error) else [(path, f"an error without its name: {error}")]
        return
    counts["read"] += 1
    if is_scene(path):
        counts["scenes"] += 1
        tile = max(48, max(whole.shape) // 3)
        same = all(
            np.array_equal(np.asarray(image), whole[top:bottom, left:right])
            and np.array_equal(np.asarray(read_box(path, (left, top, right, bottom))), np.asarray(image))
            for (left, top, right, bottom), image in read_tiles(path, tile, tile // 3)
        )
        counts[TILES] += same
        told += [] if same else [(path, "tiles differ from the whole")]
    reference = expected(path)
    if reference is not None:
        counts["read by both"] += 1
        distance = np.abs(reference - whole).max() if reference.shape == whole.shape else 999
        counts[NEAR] += bool(distance <= LEVELS)
        told += [] if distance <= LEVELS else [(path, f"{distance} grey levels from the reference")]
        compare_place(path, counts, told)


def compare_place(path, counts: Counter, told: list):
    """Compare the outline of the whole with rasterio's corners."""
    try:
        file = rasterio.open(path)
    except rasterio.errors.RasterioIOError:  # not a format of GDAL
        return
    with file:
        if not file.crs or file.transform.is_identity:
            return
        width, height, crs = file.width, file.height, file.crs
        a, b, c, d, e, f = file.transform[:6]
    corners = [(0, 0), (width, 0), (width, height), (0, height)]
    east, north = zip(*[(a * x + b * y + c, d * x + e * y + f) for x, y in corners])
    try:
        lons, lats = transform(crs, "EPSG:4326", east, north)
    except (rasterio.errors.RasterioError, rasterio._err.CPLE_BaseError):  # a corner that is not on the Earth
        lons, lats = [np.inf], [np.inf]
    counts["georeferenced"] += 1
    try:
        geometry = Place(path).geometry((0, 0, width, height))
    except NoPlaceError as error:
        outside = not np.isfinite([*lons, *lats]).all()
        counts[PLACED] += outside
        told += [] if outside else [(path, str(error))]
        return
    polygons = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
    ring = np.array([point for rings in polygons for point in rings[0]])
    distance = max(np.abs(ring - point).max(1).min() for point in zip(lons, lats))
    pixel = min(max(abs(lons[1] - lons[0]), abs(lats[1] - lats[0])) / width,
                max(abs(lons[3] - lons[0]), abs(lats[3] - lats[0])) / height)  # fmt: skip
    near = distance <= min(DEGREES, PIXELS * pixel)
    counts[PLACED] += bool(near)
    told += [] if near else [(path, f"a corner is {distance} degrees off, {distance / pixel} pixels")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+")
    parser.add_argument("--json", help="write the counts here")
    args = parser.parse_args()
    counts, told = Counter(), []
    for root in args.folders:
        folder = list_folder(root)
        counts["files"] += sum(path.is_file() for path in Path(root).rglob("*"))
        counts["listed"] += len(folder.refused) + sum(folder.others.values())
        for path in tqdm(folder.pictures):
            try:
                compare(path, counts, told)
            except Exception:
                counts["tracebacks"] += 1
                told.append((path, traceback.format_exc().splitlines()[-1]))
    near = counts[NEAR] / max(1, counts["read by both"])
    done = {
        "0 tracebacks": counts["tracebacks"] == 0,
        "every file read or listed": counts["read"] + counts["listed"] == counts["files"],
        "tiles and boxes equal the whole": counts[TILES] == counts["scenes"],
        f"within {LEVELS} grey levels for >= 99 % ({100 * near:.1f} %)": near >= 0.99,
        f"corners within {DEGREES} degrees and {PIXELS} pixels": counts[PLACED] == counts["georeferenced"],
    }
    print("\n".join(f"{number:6}  {name}" for name, number in counts.items()))
    print("\n".join(f"{path}: {what}" for path, what in told))
    print("\n".join(f"{'yes' if met else 'NO':>6}  {name}" for name, met in done.items()))
    if args.json:
        Path(args.json).write_text(json.dumps({"counts": counts, "met": done}), encoding="utf-8")
    return 0 if all(done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
