"""Decode and resize pictures faster than the processor does; the pixels differ a little.

Exact: decode in full size, resize, rescale and normalise in float on the host. Fast: decode a JPEG at the smallest of
1/8, 1/4 and 1/2 of its size that is no smaller than the model's input, resize in 8 bit, and normalise on the device.
Pictures of less than twice that size are decoded in full size and give the processor's pixels. Do not use it to
reproduce figures.
"""

import numpy as np
import torch
from PIL import Image


class FastResize:
    """The resizing and normalising of a processor whose images become squares.

    Args:
        processor: of the model; its `image_processor` must resize to height and width, rescale and normalise, and do
            nothing else.

    Raises:
        ValueError: the processor does something else, such as a centre crop.
    """

    def __init__(self, processor):
        images = getattr(processor, "image_processor", processor)
        size = getattr(images, "size", None) or {}
        height, width = size.get("height"), size.get("width")
        crops = getattr(images, "do_center_crop", None) or getattr(images, "do_pad", None)
        known = height and width and getattr(images, "do_resize", None) and getattr(images, "do_rescale", None)
        if not known or crops:
            raise _unknown(images, size)
        self.size, self.least_side, self.resample = (width, height), max(height, width), images.resample
        mean, std = (images.image_mean, images.image_std) if images.do_normalize else ([0.0] * 3, [1.0] * 3)
        scale = torch.tensor(std, dtype=torch.float32, device="cpu").view(1, 3, 1, 1)
        self.gain = images.rescale_factor / scale
        self.offset = torch.tensor(mean, dtype=torch.float32, device="cpu").view(1, 3, 1, 1) / scale
        if not self._agrees(images):
            raise _unknown(images, size)

    def _agrees(self, images) -> bool:
        """Whether it gives the pixels of the processor, which may do more than its settings say."""
        sample = Image.linear_gradient("L").resize((2 * self.size[0], self.size[1])).convert("RGB")
        theirs = images(images=[sample], return_tensors="pt")["pixel_values"].cpu()
        mine = self.finish(self.prepare([sample]))
        return mine.shape == theirs.shape and bool((mine - theirs).abs().max() < 0.05)  # a step of 8 bits is 0.02

    def prepare(self, images: list) -> torch.Tensor:
        """Resize RGB pictures: (B, 3, H, W) in 8 bit."""
        pixels = np.stack([np.asarray(image.resize(self.size, self.resample)) for image in images])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def finish(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise (B, 3, H, W) on its device: float32."""
        pixels = pixels.contiguous().to(torch.float32)  # contiguous first, then float: takes a quarter of the time
        return pixels.mul_(self.gain.to(pixels.device)).sub_(self.offset.to(pixels.device))


def _unknown(images, size) -> ValueError:
    return ValueError(
        f"fast mode needs a processor that resizes pictures to a fixed height and width, not {type(images).__name__} "
        f"with size {dict(size)}: leave out --fast"
    )


__all__ = ["FastResize"]
