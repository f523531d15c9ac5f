"""How the values of a raster become a picture: which bands are used, their depth, and which pixels are not valid.

A palette's indices, ink, inverted greys, premultiplied colours, signed and complex numbers become red, green and blue
(or grey) here, before anything is stretched; so whole pictures, tiles and boxes cannot differ in it.
"""

from dataclasses import dataclass

import numpy as np

from .pixels import BadImageError
from .raster import EXTRA_SAMPLES, PHOTOMETRIC

REFUSED_COLOURS = {  # TIFF's PhotometricInterpretation
    9: "ICCLAB",
    10: "ITULAB",
    32803: "CFA, as a sensor sees them",
    32844: "LogL",
    32845: "LogLuv",
    34892: "LinearRaw, as a sensor sees them",
}
CIELAB, ASSOCIATED_ALPHA = 8, 1


@dataclass(frozen=True)
class Bands:
    """How the bands of one raster are read."""

    indexes: tuple[int, ...]  # one (grey) or three, counted from 1; four for ink
    alpha: int | None  # band of opacity
    colours: str  # as they are, palette, inverted or ink
    bits: int  # of a sample
    deep: bool  # more than eight bits, or not integers: stretched
    signed: bool
    nodata: tuple[float | None, ...]  # of each index
    masked: bool  # a mask marks valid pixels
    premultiplied: bool = False
    hidden_is_white: bool = False  # pixels that are not valid are transparent (PNG), not missing
    palette: np.ndarray | None = None  # (entries, 4) in 8 bits: red, green, blue, opacity


def bands_of(dataset, tags: dict[int, int], chosen, name: str) -> Bands:
    """Decide how a raster is read.

    Args:
        dataset: of `raster.opened`.
        tags: of `raster.TiffHeader`; empty for other formats.
        chosen: three band numbers, counted from 1, as red, green, blue. Default: the bands that the file calls so, else
            the first three; of fewer, the first.
        name: how errors call the raster.

    Raises:
        BadImageError: no such band, or colours that are not read.
    """
    kind, meanings = np.dtype(_numpy_name(dataset.dtypes[0])), [c.name for c in dataset.colorinterp]
    photometric = tags.get(PHOTOMETRIC)
    if photometric in REFUSED_COLOURS or (photometric == CIELAB and kind != np.uint8):  # GDAL converts 8 bits
        colours = REFUSED_COLOURS.get(photometric, "CIELAB of more than 8 bits")
        raise BadImageError(f"{name}: its colours are stored as {colours}, which is not read: convert it to RGB")
    count = dataset.count
    if chosen is not None and (len(chosen) != 3 or not all(1 <= band <= count for band in chosen)):
        raise BadImageError(f"{name}: bands {tuple(chosen)} of {count}; give three numbers from 1 to {count}")
    structure = dataset.tags(ns="IMAGE_STRUCTURE")
    indexes, colours = _picture(meanings, structure, chosen)
    alpha = next((band for band, meaning in enumerate(meanings, 1) if meaning == "alpha" and band not in indexes), None)
    bits = int(dataset.tags(indexes[0], ns="IMAGE_STRUCTURE").get("NBITS", kind.itemsize * 8))
    flags = [flag.name for flag in dataset.mask_flag_enums[indexes[0] - 1]]
    palette = _palette(dataset, indexes[0]) if colours == "palette" else None
    return Bands(
        indexes,
        alpha,
        colours,
        bits,
        deep=palette is None and (kind.kind not in "iu" or bits > 8),
        signed=kind.kind == "i",
        nodata=tuple(dataset.nodatavals[band - 1] for band in indexes),
        masked="per_dataset" in flags and "alpha" not in flags,
        premultiplied=alpha is not None and tags.get(EXTRA_SAMPLES) == ASSOCIATED_ALPHA,
        hidden_is_white=dataset.driver == "PNG",
        palette=palette,
    )


def _picture(meanings: list[str], structure: dict, chosen) -> tuple[tuple[int, ...], str]:
    """The bands of the picture, and their kind of colours."""
    if chosen is not None and len(meanings) > 1:
        return tuple(chosen), "as they are"
    if structure.get("MINISWHITE") == "YES" and len(meanings) - meanings.count("alpha") == 1:
        return (1,), "inverted"
    if meanings[0] == "palette":
        return (1,), "palette"
    if meanings[:4] == ["cyan", "magenta", "yellow", "black"]:
        return (1, 2, 3, 4), "ink"
    if {"red", "green", "blue"} <= set(meanings):
        return tuple(meanings.index(colour) + 1 for colour in ("red", "green", "blue")), "as they are"
    plain = [band for band, meaning in enumerate(meanings, 1) if meaning != "alpha"] or [1]
    return tuple(plain[:3] if len(plain) >= 3 else plain[:1]), "as they are"


def _palette(dataset, band: int) -> np.ndarray:
    colours = dataset.colormap(band)
    table = np.zeros((max(colours) + 1, 4), np.uint8)
    for entry, colour in colours.items():
        table[entry] = colour
    return table


def _numpy_name(name: str) -> str:
    return "complex64" if name == "complex_int16" else name


def read_window(dataset, bands: Bands, left: int, top: int, right: int, bottom: int):
    """Read a part of a raster as its bands say.

    Returns:
        values (H, W, 1 or 3), in 8 bits unless `bands.deep`; opacity (H, W) between 0 and 1, or None; and which values
        are valid (H, W, 1 or 3), or None for all.
    """
    window = ((top, bottom), (left, right))
    stored = np.moveaxis(dataset.read(list(bands.indexes), window=window), 0, -1)
    opacity = None
    if bands.alpha is not None:
        opacity = _fraction(dataset.read(bands.alpha, window=window), bands.bits)
    valid = _valid(dataset, bands, stored, window)
    values = np.abs(stored) if np.iscomplexobj(stored) else stored
    if bands.palette is not None:
        painted = bands.palette[np.minimum(values[..., 0], len(bands.palette) - 1)]
        values, opacity = painted[..., :3], _fraction(painted[..., 3], 8) if (painted[..., 3] < 255).any() else opacity
    elif bands.deep:
        values = _deep(values, bands, opacity)
    else:
        values = _eight_bits(values, bands)
    if valid is not None:
        if bands.colours in ("ink", "palette"):
            valid = np.broadcast_to(valid.any(-1, keepdims=True), values.shape)
        if bands.hidden_is_white:
            seen = valid.any(-1).astype(np.float32)
            valid, opacity = None, seen if opacity is None else opacity * seen
    return values, opacity, valid


def _fraction(values: np.ndarray, bits: int) -> np.ndarray:
    full = 1.0 if values.dtype.kind == "f" else float(2 ** min(bits, values.dtype.itemsize * 8) - 1)
    return (np.nan_to_num(values.astype(np.float32)) / full).clip(0, 1)


def _valid(dataset, bands: Bands, stored: np.ndarray, window) -> np.ndarray | None:
    parts = []
    if stored.dtype.kind in "fc":
        parts.append(np.isfinite(stored))
    if any(value is not None and not np.isnan(value) for value in bands.nodata):
        parts.append(np.stack([_differs(stored[..., n], value) for n, value in enumerate(bands.nodata)], -1))
    if bands.masked:
        parts.append(np.broadcast_to(dataset.read_masks(1, window=window)[..., None] > 0, stored.shape))
    return None if not parts or all(part.all() for part in parts) else np.logical_and.reduce(parts)


def _differs(values: np.ndarray, nodata) -> np.ndarray:
    """Where a band is not its nodata value; a value that its type cannot hold occurs nowhere."""
    if nodata is None or np.isnan(nodata):
        return np.ones(values.shape, bool)
    if values.dtype.kind in "iu":
        limits = np.iinfo(values.dtype)
        if nodata != int(nodata) or not limits.min <= nodata <= limits.max:
            return np.ones(values.shape, bool)
        return values != values.dtype.type(int(nodata))
    return ~np.isclose(values, nodata, rtol=1e-6, atol=0)  # nodata is written as a decimal, often with fewer digits


def _eight_bits(values: np.ndarray, bands: Bands) -> np.ndarray:
    """Integers of at most eight bits, scaled to the full range."""
    full = 2**bands.bits - 1
    numbers = values.astype(np.int32) + (2 ** (bands.bits - 1) if bands.signed else 0)
    numbers = full - numbers if bands.colours == "inverted" else numbers
    return ((numbers.clip(0, full) * 255 + full // 2) // full).astype(np.uint8)


def _deep(values: np.ndarray, bands: Bands, opacity) -> np.ndarray:
    """Values of more than eight bits, not yet stretched."""
    full = 1 if values.dtype.kind == "f" else 2**bands.bits - 1
    if bands.colours == "ink":
        values = values.astype(np.float64) / full
        return (1 - values[..., :3]) * (1 - values[..., 3:])
    if bands.colours == "inverted":
        return -values if values.dtype.kind == "f" or bands.signed else values.dtype.type(full) - values
    if bands.premultiplied:
        with np.errstate(all="ignore"):
            return np.where(opacity[..., None] > 0, values / opacity[..., None], 0.0)
    return values


__all__ = ["Bands", "bands_of", "read_window"]
