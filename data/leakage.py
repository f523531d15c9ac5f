"""Find images that two sources or splits share: exact copies, resized, re-encoded, turned or mirrored ones.

Every image becomes a small colour thumbnail, centred and of unit length; a dot product is then a correlation, and all
pairs cost one blocked matrix product for each of the eight ways to turn and mirror a square. Pairs that correlate are
looked at again: the fine structure of a larger grey thumbnail, which similar scenes do not share, must correlate, too.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
from tqdm.auto import tqdm

from ..files.digests import file_digest
from ..processing.pixels import BadImageError
from ..processing.scenes import open_any
from .rows import image_source
from .sources import read_source

COARSE, FINE = 16, 32  # sides of the two thumbnails
LOOKS_ALIKE, SAME_STRUCTURE = 0.94, 0.75  # correlations of a copy; see benchmarks/leakage.py
LIKELIEST = 16  # candidates compared in detail for each image, so that 1,000 near copies do not make 1,000,000 pairs
FLAT = 2.0  # deviation in grey levels; below it, a picture (sea, sand, a blank tile) has no structure to compare
TURNS = ("as it is", "turned by 90", "turned by 180", "turned by 270")
TURNS += ("mirrored", "mirrored, turned by 90", "mirrored, turned by 180", "mirrored, turned by 270")


@dataclass
class Leak:
    """An image of A that is in B, too, and further images of both sides with exactly the same pixels."""

    a_row: int
    b_row: int
    a_id: str
    b_id: str
    kind: str  # exact (same bytes or same pixels) or near
    transform: str  # how A's image looks in B
    correlation: float  # of the coarse thumbnails
    a_same: list[str] = field(default_factory=list)  # ids of further images of A with these pixels
    b_same: list[str] = field(default_factory=list)


@dataclass
class Prints:
    """Digests and thumbnails of N images."""

    ids: list[str]
    digests: list[tuple[str, str]]  # of bytes and of pixels; "" where an image does not decode
    coarse: np.ndarray  # (N, COARSE, COARSE, 3) float32
    fine: np.ndarray  # (N, FINE, FINE) float32
    unreadable: list[str]
    flat: int


def find_leaks(a: Prints, b: Prints, block: int = 2048) -> list[Leak]:
    """Pair the images of A with those of B, each with its best transform.

    Images of one side with the same pixels are one (`a_same`, `b_same`); of its near copies an image is compared with
    the `LIKELIEST`. Flat pictures (deviation below FLAT grey levels) are paired by their pixels alone, unreadable ones
    not at all.
    """
    groups = _same_pixels(a), _same_pixels(b)
    by_pair: dict[tuple[int, int], Leak] = {}
    for pixels, rows in groups[0].items():
        if pixels in groups[1]:
            pair = rows[0], groups[1][pixels][0]
            by_pair[pair] = Leak(*pair, a.ids[pair[0]], b.ids[pair[1]], "exact", TURNS[0], 1.0)
    firsts = [np.array([rows[0] for rows in group.values()], int) for group in groups]
    length = COARSE * COARSE * 3
    gallery = b.coarse[firsts[1]].reshape(len(firsts[1]), length)
    for turn, name in enumerate(TURNS):
        turned = turn_all(a.coarse[firsts[0]], turn).reshape(len(firsts[0]), length)
        for start in range(0, len(turned), block):
            scores = turned[start : start + block] @ gallery.T
            for row, other in zip(*np.nonzero(_likeliest(scores) & (scores > LOOKS_ALIKE))):
                pair, score = (int(firsts[0][row + start]), int(firsts[1][other])), float(scores[row, other])
                if pair in by_pair and (by_pair[pair].kind == "exact" or by_pair[pair].correlation >= score):
                    continue
                structure = turn_all(a.fine[pair[0]][None], turn)[0]
                if float((structure * b.fine[pair[1]]).sum()) > SAME_STRUCTURE:
                    by_pair[pair] = Leak(*pair, a.ids[pair[0]], b.ids[pair[1]], "near", name, score)
    for leak in by_pair.values():
        leak.a_same, leak.b_same = (
            [side.ids[row] for row in group[side.digests[own][1]][1:]]
            for side, group, own in zip((a, b), groups, (leak.a_row, leak.b_row))
        )
    return [by_pair[pair] for pair in sorted(by_pair)]


def _same_pixels(prints: Prints) -> dict[str, list[int]]:
    """Digest of pixels -> rows that have them, without those that do not decode."""
    groups: dict[str, list[int]] = {}
    for row, (_, pixels) in enumerate(prints.digests):
        if pixels:
            groups.setdefault(pixels, []).append(row)
    return groups


def _likeliest(scores: np.ndarray) -> np.ndarray:
    """Where a score is among the `LIKELIEST` of its row or of its column, (N, M) bool."""
    likely = np.zeros(scores.shape, bool)
    for axis in (0, 1):
        if scores.shape[axis] <= LIKELIEST:
            return np.ones(scores.shape, bool)
        best = np.argpartition(-scores, LIKELIEST, axis).take(range(LIKELIEST), axis)
        np.put_along_axis(likely, best, True, axis)
    return likely


def turn_all(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Turn (N, side, side, ...) by one of the eight ways of TURNS."""
    pictures = pictures[:, :, ::-1] if turn >= 4 else pictures
    return np.ascontiguousarray(np.rot90(pictures, turn % 4, axes=(2, 1)))


def prints_of(rows, title: str) -> Prints:
    """Decode the images of prepared or raw rows (`image`, and `image_id` if there is one) and keep their thumbnails."""
    count, ids, digests, unreadable, flat = len(rows), [], [], [], 0
    coarse = np.zeros((count, COARSE, COARSE, 3), np.float32)
    fine = np.zeros((count, FINE, FINE), np.float32)
    for number, row in enumerate(tqdm(rows, desc=title, leave=False)):
        source = image_source(row["image"])
        ids.append(str(row.get("image_id") or _name(row["image"]) or number))
        try:
            image = open_any(source, name=ids[-1])
            digest = hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else file_digest(source)
        except (BadImageError, OSError):
            unreadable.append(ids[-1])
            digests.append(("", ""))
            continue
        pixels = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()
        digests.append((digest, pixels))
        small = np.asarray(image.resize((FINE, FINE), resample=4), np.float32)  # 4: mean over a box
        if small.std((0, 1)).max() < FLAT:
            flat += 1
            continue
        coarse[number] = _unit(small.reshape(COARSE, 2, COARSE, 2, 3).mean((1, 3)))
        grey = small.mean(-1)
        blocks = grey.reshape(FINE // 4, 4, FINE // 4, 4)
        fine[number] = _unit((blocks - blocks.mean((1, 3), keepdims=True)).reshape(FINE, FINE))
    return Prints(ids, digests, coarse, fine, unreadable, flat)


def prints_of_split(
    data: str,
    split: str,
    image_root: str | None = None,
    image_column: str = "image",
    any_split: bool = False,
    data_config: str | None = None,
) -> Prints:
    """Read one split of a source and keep its images' thumbnails; arguments of `read_source`.

    Raises:
        ValueError: no such column, or no image that decodes.
    """
    rows = read_source(data, split, image_root, image_column, any_split, data_config)
    if image_column not in rows.column_names:
        raise ValueError(f"{data} has no column {image_column!r}; name the images with --image_column")
    rows = rows.rename_column(image_column, "image") if image_column != "image" else rows
    keep = [name for name in ("image", "image_id", "filename") if name in rows.column_names]
    prints = prints_of(rows.select_columns(keep), f"looking at {split}")
    if len(prints.unreadable) == len(prints.ids):
        first = f", first {prints.ids[0]!r}" if prints.ids else ""
        raise ValueError(
            f"{data} [{split}]: none of its {len(prints.ids)} images decodes{first}; where {image_column!r} holds "
            "names of files, say where they lie with --image_root FOLDER"
        )
    return prints


def _unit(values: np.ndarray) -> np.ndarray:
    values = values - values.mean()
    return values / max(float(np.sqrt((values**2).sum())), 1e-6)


def _name(image) -> str | None:
    return image.get("path") if isinstance(image, dict) else None


__all__ = ["TURNS", "Leak", "Prints", "find_leaks", "prints_of", "prints_of_split", "turn_all"]
