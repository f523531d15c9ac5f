"""An Inference Endpoint of an image-text model: embeddings, or images against labels.

    {"inputs": {"text": "two boats"}}                                  -> {"text_embeds": [[...]]}
    {"inputs": {"image": "<base64>"}}                                  -> {"image_embeds": [[...]]}
    {"inputs": {"image": "<base64>"}, "parameters": {"candidate_labels": ["a dog", "a cat"]}}
                                                                       -> [{"label": ..., "score": ...}, ...]
    {"inputs": {"image": [...], "text": [...]}}                        -> {"cosines": [[...]]} images x texts

The key says what a string is. Addresses are not fetched and paths are not opened. Requests
may come from several threads; the model works on one batch at a time.
"""

import base64
import io
import threading
import time
from contextlib import contextmanager

import torch
from transformers import AutoModel, AutoProcessor

LARGEST = 20_000_000  # bytes of one encoded image
ENCODED = 100_000_000  # bytes of all of them, as base64
MOST = 256  # items of one request
CHARACTERS = 10_000  # of one text; a tower reads a few hundred tokens
ALL_CHARACTERS = 200_000  # of all texts of one request
PIXELS = 128_000_000  # of all images of one request; a file of a few KB may have 100 megapixels
DEEP = 8  # cost of a pixel of more than 8 bits, in pixels of 8 bits: it is stretched in float64
SCANS = 64  # of one JPEG: each passes over all pixels, but needs only a few bytes in the file
SECONDS = 60.0  # of one request, in which it waits for others; looked at before each picture and each batch
AT_ONCE = 16  # items of a batch: what is computed between two looks at the clock
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # some other formats of Pillow start a process (Ghostscript)


class TooMuchError(ValueError):
    """A request is larger than what is answered; the message says how much is."""


class EndpointHandler:
    """Load the model once; each call answers one request.

    Args:
        path: folder of the repository.

    Raises:
        ValueError: the checkpoint lacks weights.
    """

    lock = threading.Lock()  # tokenizers refuse to be used by two threads at once

    def __init__(self, path: str = ""):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, info = AutoModel.from_pretrained(path, trust_remote_code=True, output_loading_info=True)
        if lost := sorted(map(str, info["missing_keys"])):  # transformers only warns, and draws new ones
            raise ValueError(
                f"{len(lost)} weights are not in the checkpoint (first: {lost[0]}), and random ones find nothing: "
                "upload the whole model again"
            )
        self.model = model.to(device).eval()
        self.processor = AutoProcessor.from_pretrained(path, trust_remote_code=True)

    def __call__(self, data: dict):
        """Answer a request.

        Raises:
            ValueError: the request is not one of those above; the message says what is allowed.
            TimeoutError: it took more than `SECONDS`.
        """
        deadline = time.monotonic() + SECONDS
        data = data if isinstance(data, dict) else {}
        inputs, parameters = data.get("inputs"), data.get("parameters")
        parameters = {} if parameters is None else parameters
        if not isinstance(parameters, dict) or set(parameters) - {"candidate_labels"}:
            raise ValueError('parameters must be {"candidate_labels": [...]}')
        if hasattr(inputs, "getbands"):  # the toolkit decodes a body of type image/*
            inputs = {"image": inputs}
        if not isinstance(inputs, dict) or not inputs or set(inputs) - {"image", "text"}:
            raise ValueError('inputs must be {"image": base64}, {"text": string}, or both; each may be a list')
        labels = parameters.get("candidate_labels")
        images, texts = pictures_of(inputs.get("image"), deadline), texts_of(inputs.get("text"), "text")
        if labels is not None:
            if len(images) != 1 or texts:
                raise ValueError("candidate_labels go with one image and no text")
            return self._scores(images, texts_of(labels, "candidate_labels"), deadline)
        answer = {}
        if images:
            answer["image_embeds"] = self._encode(self.model.encode_image, images, deadline)
        if texts:
            answer["text_embeds"] = self._encode(self.model.encode_text, texts, deadline)
        if not answer:
            raise ValueError("inputs hold neither an image nor a text")
        if len(answer) == 2:
            answer = {"cosines": answer["image_embeds"] @ answer["text_embeds"].t()}
        return {name: values.tolist() for name, values in answer.items()}

    def _encode(self, encode, items: list, deadline: float) -> torch.Tensor:
        """Embeddings of pictures or texts, batch by batch."""
        parts = []
        for start in range(0, len(items), AT_ONCE):
            while not self.lock.acquire(timeout=_seconds_left(deadline)):
                pass
            try:
                parts.append(encode(items[start : start + AT_ONCE], processor=self.processor))
            finally:
                self.lock.release()
        return torch.cat(parts)

    def _scores(self, images, labels: list[str], deadline: float) -> list[dict]:
        """Softmax over the labels, best first."""
        if not labels:
            raise ValueError("candidate_labels is empty")
        texts = self._encode(self.model.encode_text, labels, deadline)
        cosines = self._encode(self.model.encode_image, images, deadline) @ texts.t()
        scores = (cosines[0] * self.model.config.logit_scale).softmax(0).tolist()
        rows = [{"label": label, "score": score} for label, score in zip(labels, scores)]
        return sorted(rows, key=lambda row: -row["score"])


def _seconds_left(deadline: float) -> float:
    """Seconds to the deadline of a request.

    Raises:
        TimeoutError: none.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError(f"the request took more than {SECONDS:g} s: send fewer items, or send it again later")
    return left


def _opened(text, row: int):
    """Open a base64 picture; only its header is read."""
    from PIL import Image

    if not isinstance(text, str) or len(text) > LARGEST * 4 // 3:
        raise ValueError(f"image {row} must be a base64 string of at most {LARGEST // 1_000_000} MB")
    text = text.partition("base64,")[2] if text.startswith("data:") else text
    with _refusing(row):
        data = base64.b64decode(text.encode().translate(None, b" \t\r\n"), validate=True)  # `base64` breaks lines
        scans = data.count(b"\xff\xda") if data.startswith(b"\xff\xd8") else 0
        if scans > SCANS:
            raise ValueError(f"a JPEG of {scans} scans, at most {SCANS} are decoded")
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _cost(image) -> int:
    """Number of pixels to decode, from the header; for a TIFF, of its tile if that is larger than the picture."""
    width, height = image.size
    tags = getattr(image, "tag_v2", {})
    if 322 in tags:  # TileWidth; 323 is TileLength
        width, height = max(width, int(tags[322])), max(height, int(tags.get(323, 0)))
    return width * height * (DEEP if image.mode[:1] in ("I", "F") else 1)


@contextmanager
def _refusing(row: int):
    """Turn errors of Pillow into a message that tells the sender the remedy."""
    try:
        yield
    except Exception as error:  # Pillow's decoders raise many types
        reason = str(error).partition(" <")[0]  # Pillow names the object in memory that it reads
        raise ValueError(
            f"image {row} is no base64 of a whole picture ({reason}); addresses are not fetched: send the bytes"
        ) from None


def _listed(given) -> list:
    """What a request gives once, several times or not at all, as a list."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]


def pictures_of(given, deadline: float, most: int | None = None, most_pixels: int | None = None) -> list:
    """Decode the base64 pictures (or PIL images) of a request.

    Args:
        given: one, a list, or None.
        deadline: of the request, as `time.monotonic` counts.
        most, most_pixels: number of pictures, and pixels of all of them (default: `MOST`, `PIXELS`).

    Raises:
        ValueError: no such pictures; TooMuchError: too many or too large; TimeoutError: after the deadline.
    """
    most, most_pixels = MOST if most is None else most, PIXELS if most_pixels is None else most_pixels
    given = _listed(given)
    if len(given) > most:
        raise TooMuchError(f"at most {most} images a request, got {len(given)}")
    if sum(len(image) for image in given if isinstance(image, str)) > ENCODED:
        raise TooMuchError(f"at most {ENCODED // 1_000_000} MB of base64 a request: send fewer or smaller images")
    images = [image if hasattr(image, "getbands") else _opened(image, row) for row, image in enumerate(given)]
    pixels = sum(_cost(image) for image in images)
    if pixels > most_pixels:
        raise TooMuchError(f"at most {most_pixels:,} pixels a request, got {pixels:,}: send fewer or smaller images")
    for row, image in enumerate(images):
        _seconds_left(deadline)
        with _refusing(row):
            image.load()
    return images


def texts_of(given, name: str, most: int | None = None) -> list[str]:
    """Check the texts of a request.

    Args:
        given: one, a list, or None.
        name: what errors call them.
        most: how many there may be (default: `MOST`).

    Raises:
        ValueError: something else than strings with words; TooMuchError: too many or too long.
    """
    most = MOST if most is None else most
    given = _listed(given)
    if len(given) > most:
        raise TooMuchError(f"at most {most} texts a request, got {len(given)}")
    for row, text in enumerate(given):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{name} {row} must be a string with words")
        if len(text) > CHARACTERS:
            raise TooMuchError(f"{name} {row} has {len(text):,} characters, at most {CHARACTERS:,} are read")
        if any("\ud800" <= letter <= "\udfff" for letter in text):  # the model would count it within its batch
            raise ValueError(f"{name} {row} is not Unicode text: it holds half of a UTF-16 pair")
    if sum(map(len, given)) > ALL_CHARACTERS:
        raise TooMuchError(f"at most {ALL_CHARACTERS:,} characters a request: send fewer texts")
    return given
