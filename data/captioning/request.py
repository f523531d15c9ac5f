"""The request to a model for one picture, and its outcome: a caption or a failure."""

import hashlib
import json
from dataclasses import asdict, dataclass

MIN_IMAGE_SIDE = 16  # pixels


class CaptionError(RuntimeError):
    """A job that cannot go on; the message says why and what to do. Captions already written are kept."""


@dataclass(frozen=True)
class CaptionRequest:
    """What is asked of the model; the defaults are D2S-VSE's (arXiv 2503.14953): LLaVA, one caption an image.

    Args:
        prompt: the question.
        temperature: 0 means greedy.
        top_p: nucleus, in (0, 1].
        max_new_tokens: longer answers are cut and flagged `truncated`.
        seed: None means 0 for a local model, and that a server is sent none.
        max_image_side: larger pictures are shrunk to it, in pixels; None leaves that to the model's own processor, and
            to a server sends at most `server_captioner.MAX_IMAGE_SIDE`.
        min_words: shorter answers are no captions.
    """

    prompt: str = "Describe this image in detail"
    temperature: float = 0.2
    top_p: float = 0.9
    max_new_tokens: int = 500
    seed: int | None = None
    max_image_side: int | None = None
    min_words: int = 3

    def __post_init__(self):
        if not self.prompt.strip() or self.prompt.encode("utf-8", "ignore").decode() != self.prompt:
            raise CaptionError("the prompt is empty or not UTF-8: give --prompt a question")
        if not 0 <= self.temperature <= 10:
            raise CaptionError(f"temperature {self.temperature} is not in [0, 10]; 0.2 is the paper's")
        if not 0 < self.top_p <= 1:
            raise CaptionError(f"top_p {self.top_p} is not in (0, 1]; 0.9 is the paper's")
        if self.max_new_tokens < 1:
            raise CaptionError(f"max_new_tokens {self.max_new_tokens} is not positive; 500 is the paper's")
        if self.max_image_side is not None and self.max_image_side < MIN_IMAGE_SIDE:
            raise CaptionError(
                f"max_image_side {self.max_image_side} is below {MIN_IMAGE_SIDE} pixels: too small to see anything"
            )
        if self.min_words < 1:
            raise CaptionError(f"min_words {self.min_words} is not positive; 3 is the default")

    @property
    def prompt_hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the request without the seed."""
        asked = {**asdict(self), "temperature": float(self.temperature), "top_p": float(self.top_p)}
        del asked["seed"], asked["min_words"]
        if self.max_image_side is None:  # as hashed before it could be set
            del asked["max_image_side"]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Caption:
    """An answer. `num_tokens` is None where a server does not count; `revision` is what answered.

    `picture` is a digest of the picture (`files.digests.picture_digest`) that the job adds; earlier versions had none.
    """

    image_id: str
    dense_text: str
    truncated: bool
    num_tokens: int | None
    revision: str
    picture: str | None = None


@dataclass(frozen=True)
class Failure:
    """An image without a usable answer."""

    image_id: str
    reason: str


def fitted(image, side: int | None):
    """Return a Pillow image no side of which is longer than `side` pixels; the same one if it fits already."""
    if side is None or max(image.size) <= side:
        return image
    from PIL import Image

    scale = side / max(image.size)
    return image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC)


__all__ = ["Caption", "CaptionError", "CaptionRequest", "Failure", "fitted"]
