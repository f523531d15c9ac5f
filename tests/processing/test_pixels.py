import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from vsehub.processing.pixels import BadImageError, open_image, to_rgb


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
