import io
import sys

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from vsehub.processing import pixels
from vsehub.processing.pixels import BadImageError, format_of, head_of, open_image, to_rgb


def encoded(image, kind="PNG", **kwargs) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def photograph(size=(64, 48)):
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("cut", [0.02, 0.3, 0.6, 0.9])
def test_half_a_file_is_an_error_never_half_a_picture(kind, cut):
    data = encoded(photograph(), kind)
    with pytest.raises(BadImageError):
        open_image(data[: int(len(data) * cut)], name="holiday.jpg")


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"\x00" * 100])
def test_what_is_no_image_is_named(data):
    with pytest.raises(BadImageError, match="holiday.jpg"):
        open_image(data, name="holiday.jpg")


def test_a_bomb_is_refused_before_it_is_decoded():
    data = encoded(Image.new("1", (12000, 12000)))  # 144 megapixels in a few kilobytes
    with pytest.raises(BadImageError, match="12000 x 12000"):
        open_image(data)


def test_folders_and_missing_files_are_refused(tmp_path):
    for source in (tmp_path, tmp_path / "missing.jpg"):
        with pytest.raises(BadImageError, match="regular file"):
            open_image(source)


def test_sixteen_bits_become_eight_instead_of_white():
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    pixels = np.asarray(to_rgb(Image.fromarray(ramp)))
    assert pixels.min() == 0 and pixels.max() == 255 and 120 < pixels.mean() < 136


def test_alpha_is_laid_on_white():
    image = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert np.asarray(to_rgb(image)).tolist() == np.full((4, 4, 3), 255).tolist()


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_the_hidden_colour_of_a_png_is_white(mode):
    hidden = {"1": 0, "L": 7, "RGB": (200, 10, 30), "P": 3}[mode]
    image = Image.new(mode, (4, 4), hidden)
    image.putpixel((0, 0), {"1": 1, "L": 90, "RGB": (1, 2, 3), "P": 5}[mode])
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    expected = image.convert("RGB").getpixel((0, 0))
    found = np.asarray(open_image(encoded(image, "PNG", transparency=hidden)))
    assert found[0, 0].tolist() == list(expected) and (found.reshape(-1, 3)[1:] == 255).all()


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "LA"), ("TIFF", "LA"), ("TIFF", "RGBA"), ("PNG", "RGBA"), ("WEBP", "RGBA")]
)
def test_alpha_is_laid_on_white_in_every_container(kind, mode):
    image = Image.new(mode, (9, 9), (40, 128) if mode == "LA" else (40, 80, 120, 128))
    found = np.asarray(open_image(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))), int)
    shown = [40] * 3 if mode == "LA" else [40, 80, 120]
    assert np.abs(found - [c * 128 / 255 + 127 for c in shown]).max() <= 1


@pytest.mark.parametrize("mode", ["La", "RGBa", "PA", "LAB", "HSV", "I;16", "I;16B", "RGBX"])
def test_rare_modes_become_rgb(mode):
    base = photograph()
    image = {
        "La": lambda: base.convert("LA").convert("La"),
        "RGBa": lambda: base.convert("RGBA").convert("RGBa"),
        "PA": lambda: base.convert("P").convert("PA"),
        "LAB": lambda: Image.new("LAB", base.size),
        "I;16": lambda: Image.fromarray(np.arange(3072, dtype=np.uint16).reshape(48, 64)),
        "I;16B": lambda: Image.frombytes("I;16B", (64, 48), bytes(range(256)) * 24),
    }.get(mode, lambda: base.convert(mode))()
    assert image.mode == mode and to_rgb(image).mode == "RGB" and to_rgb(image).size == image.size


def test_more_than_eight_bits_are_stretched_between_percentiles():
    values = (np.random.default_rng(0).normal(900, 100, (60, 80))).clip(0).astype(np.uint16)
    low, high = np.percentile(values, (2, 98))
    expected = ((values - low) / (high - low) * 255).clip(0, 255).round()
    for image in (
        Image.fromarray(values),
        Image.fromarray(values.astype(np.int32)),
        Image.fromarray(values.astype(np.float32)),
    ):
        assert np.array_equal(np.asarray(to_rgb(image))[..., 0], expected)
    flat = to_rgb(Image.fromarray(np.full((4, 4), 700, np.uint16)))
    assert (np.asarray(flat) == 0).all()
    holes = np.where(values > 1100, np.nan, values).astype(np.float32)
    assert (np.asarray(to_rgb(Image.fromarray(holes)))[values > 1100] == 0).all()


FORMATS_SAVED = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "PPM", "TGA"]


@pytest.mark.parametrize("kind", FORMATS_SAVED)
def test_content_decides_what_a_file_is_not_its_name(tmp_path, kind):
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    path = tmp_path / ("picture.tga" if kind == "TGA" else "no picture.txt")
    path.write_bytes(encoded(photograph(), kind))
    assert format_of(head_of(path), path) == kind and open_image(path).size == (64, 48)


def test_a_heic_photograph_is_read_where_its_plug_in_is(monkeypatch):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `heif` is not installed")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(photograph()).save(buffer, quality=90)
    assert format_of(buffer.getvalue()) == "HEIF" and open_image(buffer.getvalue()).size == (64, 48)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(BadImageError, match=r"IMG_1.HEIC: HEIC needs pillow-heif: pip install .vsehub\[heif\]"):
        open_image(buffer.getvalue(), name="IMG_1.HEIC")


@pytest.mark.parametrize(
    "head",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",  # Pillow would start Ghostscript
        b"\xd7\xcd\xc6\x9a" + bytes(40),  # WMF
        b"%PDF-1.4",
        b"SIMPLE  =                    T",  # FITS
        b"GRIB\0\0\0\1",
        b"\x89HDF\r\n\x1a\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"P2 players are needed",
        b"BMW is a car, and this is a long sentence about it",
        b"MMORPG",
        b"P1" + b" " * 4000 + b"x",
    ],
)
def test_formats_that_are_not_listed_are_never_decoded(monkeypatch, head):
    monkeypatch.setattr(Image, "open", None)
    assert format_of(head) is None
    with pytest.raises(BadImageError, match="strange: not an image of a format that is read"):
        open_image(head + bytes(400), name="strange")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "PPM", "TIFF"])
def test_the_limit_of_pixels_holds_for_every_format(kind):
    data = encoded(Image.new("L", (300, 200)), kind)
    with pytest.raises(BadImageError, match="300 x 200 pixels, more than 59,999"):
        open_image(data, max_pixels=59_999)


def test_a_file_of_too_many_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(pixels, "MAX_BYTES", 100)
    path = tmp_path / "large.png"
    photograph().save(path)
    with pytest.raises(BadImageError, match="large.png: .* bytes, more than 100"):
        open_image(path)


@pytest.mark.parametrize("error", [MemoryError, IndexError, TypeError, RecursionError, SyntaxError])
def test_whatever_a_decoder_raises_is_one_error_with_the_name(monkeypatch, error):
    def broken(*args, **options):
        raise error("two\nlines")

    monkeypatch.setattr(ImageFile.ImageFile, "load", broken)
    with pytest.raises(BadImageError, match=rf"^holiday.png: does not decode .{error.__name__}: two lines.$"):
        open_image(encoded(photograph()), name="holiday.png")


def test_links_in_a_circle_and_names_that_cannot_be_are_no_pictures(tmp_path):
    (tmp_path / "a.jpg").symlink_to(tmp_path / "b.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    for source in (tmp_path / "a.jpg", "x\0.jpg"):
        with pytest.raises(BadImageError, match="no such file"):
            open_image(source)


def test_cmyk_photographs_keep_their_colours():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = np.asarray(open_image(encoded(red, "JPEG", quality=95)), int)
    assert np.abs(found - [255, 0, 0]).max() < 12


def test_a_palette_with_transparency_is_laid_on_white():
    image = Image.new("P", (4, 4), 0)
    image.putpalette([10, 20, 30] * 256)
    reread = Image.open(io.BytesIO(encoded(image, "PNG", transparency=0)))
    assert (np.asarray(to_rgb(reread)) == 255).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "LA", "RGBA", "I", "F", "I;16"])
def test_every_mode_becomes_rgb_of_the_same_size(mode):
    image = photograph().convert("L").convert("I").convert(mode) if mode == "I;16" else photograph().convert(mode)
    assert to_rgb(image).mode == "RGB" and to_rgb(image).size == image.size


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    image = open_image(encoded(photograph(), "JPEG", exif=exif))
    assert image.size == ((48, 64) if orientation >= 5 else (64, 48))


def test_pillow_keeps_its_own_switches():
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    open_image(encoded(photograph(), "JPEG"))
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)


def test_a_process_that_tolerates_half_images_is_refused(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(BadImageError, match="LOAD_TRUNCATED_IMAGES"):
        open_image(encoded(photograph(), "JPEG"))


@pytest.mark.parametrize("mode", ["RGB", "I", "RGBA"])
def test_a_picture_without_pixels_is_refused(mode):
    with pytest.raises(BadImageError, match="0 x 3 pixels shows nothing"):
        to_rgb(Image.new(mode, (0, 3)))
