"""Fast pixels: the processor's where a picture is decoded whole; processors that do something else are refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from vsehub import D2SVSEProcessor
from vsehub.processing.load_encoder import load_encoder
from vsehub.processing.processing_dual_encoder import square_image_processor
from vsehub.search.fast_resize import FastResize


@pytest.mark.parametrize("resample", [2, 3])
def test_the_filter_and_the_normalisation_are_the_processors(tiny_tokenizer, tiny_pictures, resample):
    processor = D2SVSEProcessor(square_image_processor(32, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7], resample), tiny_tokenizer)
    resize = FastResize(processor)
    assert (resize.size, resize.least_side, resize.resample) == ((32, 32), 32, resample)
    pixels = resize.prepare(tiny_pictures)
    assert pixels.shape == (6, 3, 32, 32) and pixels.dtype == torch.uint8
    expected = processor(images=tiny_pictures, return_tensors="pt")["pixel_values"]
    assert (resize.finish(pixels) - expected).abs().max() < 1e-5


def test_without_normalising_pixels_are_shares_of_white():
    class Plain:
        image_processor = square_image_processor(8)

    Plain.image_processor.do_normalize = False
    resize = FastResize(Plain)
    white = resize.finish(resize.prepare([Image.new("RGB", (20, 10), "white")]))
    assert np.allclose(white, 1.0)


def test_fast_pixels_of_a_whole_picture_are_the_processors(tiny_processor, tiny_pictures):
    images = [*tiny_pictures, Image.effect_mandelbrot((50, 33), (-2, -1, 1, 1), 50).convert("RGB")]
    resize = FastResize(tiny_processor)
    expected = tiny_processor(images=images, return_tensors="pt")["pixel_values"]
    assert (resize.finish(resize.prepare(images)) - expected).abs().max() < 1e-5


def test_fast_mode_refuses_a_processor_that_it_does_not_know(tiny_processor):
    class Cropping:
        image_processor = square_image_processor(32)

    Cropping.image_processor.size = {"shortest_edge": 32}
    with pytest.raises(ValueError, match="leave out --fast"):
        FastResize(Cropping)


def test_processors_of_other_families_give_their_pixels_or_are_refused(dual_folder, tiny_pictures):
    siglip = load_encoder(dual_folder("siglip"), weights=False).processor
    resize = FastResize(siglip)
    expected = siglip(images=tiny_pictures, return_tensors="pt")["pixel_values"]
    assert (resize.finish(resize.prepare(tiny_pictures)) - expected).abs().max() < 1e-5
    align = load_encoder(dual_folder("align"), weights=False).processor
    align.image_processor.do_center_crop = False  # it still normalises twice
    for processor in (
        align,
        *(load_encoder(dual_folder(name), weights=False).processor for name in ("clip", "siglip2")),
    ):
        with pytest.raises(ValueError, match="leave out --fast"):
            FastResize(processor)
