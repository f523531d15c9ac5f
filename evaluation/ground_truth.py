"""Read CxC and ECCV Caption: further matching pairs of images and captions in the COCO 5K test set.

A folder holds `{cxc,eccv,original}_{image_to_caption,caption_to_image}.json`, COCO id to a list of COCO ids, and
`coco_test_ids.npy`, the caption ids in the order of the test set: the data of the package `eccv_caption`. Sources:
Crisscrossed Captions (Parekh et al., EACL 2021), ECCV Caption (Chun et al., ECCV 2022).
"""

import importlib.util
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..files.arrays import read_array

OUTSIDE = -1
KINDS = {"image_to_text": "image_to_caption", "text_to_image": "caption_to_image"}


@dataclass(frozen=True)
class GroundTruth:
    """Positives by COCO id."""

    positives: dict[str, dict[int, list[int]]]  # way -> query -> items
    own: dict[int, list[int]]  # image -> its captions in the order of the test set

    def pairs(self, image_ids, text_to_image, caption_ids=None) -> dict[str, np.ndarray]:
        """Positives of embeddings, by way: (2, P) rows of queries and items; a row that is not listed is no query.

        The item is `OUTSIDE` for a positive that is not among the captions of the test set (ECCV Caption has two): it
        counts as a positive of the query that is always missed.

        Args:
            image_ids: N names that end in a COCO id (`391895`, `COCO_val2014_000000391895.jpg`).
            text_to_image: (T,) row of each caption's image; five captions an image.
            caption_ids: T COCO caption ids; without them the captions of an image are assumed to be in the order of
                `coco_test_ids.npy`.

        Raises:
            ValueError: other images or captions than those of the test set.
        """
        images = np.array([coco_id(name) for name in image_ids])
        missing, unknown = set(self.own) - set(images.tolist()), set(images.tolist()) - set(self.own)
        if missing or unknown or len(images) != len(self.own):
            raise ValueError(
                f"these are not the {len(self.own)} images of the ground truth: {len(missing)} are missing "
                f"{sorted(missing)[:3]}, {len(unknown)} are others {sorted(unknown)[:3]}, by COCO id"
            )
        owners = np.asarray(text_to_image)
        if caption_ids is None:
            caption_ids = np.zeros(len(owners), np.int64)
            for row, image in enumerate(images.tolist()):
                caption_ids[owners == row] = self.own[image]
        image_row = {image: row for row, image in enumerate(images.tolist())}
        text_row = {int(caption): row for row, caption in enumerate(caption_ids)}
        if len(text_row) < len(caption_ids):
            raise ValueError(f"caption_ids: {len(caption_ids)} texts have {len(text_row)} ids; each needs its own")
        lost = {caption for own in self.own.values() for caption in own} - set(text_row)
        if lost:
            raise ValueError(f"{len(lost)} captions of the ground truth are missing, COCO ids {sorted(lost)[:3]}")
        pairs = {}
        for way, rows, items in (("image_to_text", image_row, text_row), ("text_to_image", text_row, image_row)):
            listed = [
                (rows[query], items.get(item, OUTSIDE))
                for query, those in self.positives[way].items()
                for item in set(those)  # a list may name one twice
            ]
            pairs[way] = np.array(sorted(listed), np.int64).T
        return pairs


def coco_id(name) -> int:
    """The number at the end of a name, before a suffix.

    Raises:
        ValueError: there is none.
    """
    match = re.search(r"(\d+)(?:\.[A-Za-z]+)?$", str(name))
    if not match:
        raise ValueError(f"image id {name!r} does not end in a COCO id, which this ground truth needs")
    return int(match[1])


def read_ground_truth(name: str, folder: str | Path | None = None) -> GroundTruth:
    """Read `cxc` or `eccv` from a folder, or from the package `eccv_caption` if it is installed.

    Raises:
        ImportError: no folder given and no such package.
        FileNotFoundError, ValueError: a file is missing or broken.
    """
    if folder is None:
        package = importlib.util.find_spec("eccv_caption")
        if package is None:
            raise ImportError(
                f'the ground truth of {name} is not installed: pip install "vsehub[eccv]", or name its folder '
                "with --ground_truth"
            )
        folder = Path(package.submodule_search_locations[0]) / "data"
    folder = Path(folder)
    if not (folder / "coco_test_ids.npy").is_file():
        raise FileNotFoundError(f"{folder}: no ground truth there (it needs coco_test_ids.npy and six json files)")
    image_of = _read(folder / "original_caption_to_image.json")
    own: dict[int, list[int]] = {}
    for caption in read_array(folder / "coco_test_ids.npy", "integer", 1).tolist():
        if not image_of.get(caption):
            raise ValueError(f"{folder}: caption {caption} of coco_test_ids.npy has no image")
        own.setdefault(image_of[caption][0], []).append(caption)
    return GroundTruth({way: _read(folder / f"{name}_{kind}.json") for way, kind in KINDS.items()}, own)


def _read(path: Path) -> dict[int, list[int]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {int(query): list(map(int, items)) for query, items in content.items()}
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a ground truth (COCO ids to lists of COCO ids): {error}") from None


__all__ = ["OUTSIDE", "GroundTruth", "coco_id", "read_ground_truth"]
