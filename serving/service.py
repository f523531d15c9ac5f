"""What a server answers, without HTTP: searches, embeddings, pictures and belief maps of one index."""

import base64
import threading
import time

import numpy as np
import torch
from PIL import Image

from ..hub_cards.handler import pictures_of
from ..plots.belief_map import belief_grid, overlay
from ..search.cutoff import Cutoff
from ..search.pages import model_name, small_jpeg
from ..search.retriever import Hit
from .batching_encoder import BatchingEncoder
from .live_index import LiveIndex, State
from .questions import Limits, read_embedding, read_question

DECODING = 4  # requests whose decoded pictures are in memory at once
SIDES = (448, 1280)  # pixels of the pictures that are served: beside a hit, and enlarged
EXAMPLES = ("a person outdoors", "a boat on the water", "a street with cars", "an animal")
LONGEST_EXAMPLE = 60  # characters


class Service:
    """Answers from one model and the newest state of one index; all methods may be called by several threads.

    Args:
        live: the index; its retriever's encoder is a `BatchingEncoder`.
        limits: of a request.
        examples: queries that the page offers; default captions of the index.
        means: of `Retriever.search`.
    """

    def __init__(self, live: LiveIndex, limits: Limits, examples: tuple[str, ...] = (), means: bool = True):
        assert isinstance(live.encoder, BatchingEncoder)
        self.live, self.encoder, self.limits = live, live.encoder, limits
        self.model = model_name(live.now.retriever.made_by)
        self._decoding = threading.BoundedSemaphore(DECODING)
        self._examples, self._means = list(examples), means

    def search(self, body: bytes) -> dict:
        """Answer `POST /search`.

        Raises:
            ValueError: a question that cannot be answered; KeyError: an id that is not in the index; TimeoutError.
        """
        question = read_question(body, self.limits)
        state = self.live.now
        like = None
        if question.like is not None:
            like = state.hit_of(question.like)
            if like is None:
                raise KeyError("no item of the index has this id: it may have been removed")
        answer = self._with_pictures(
            question.images,
            lambda images: state.retriever.answer(
                question.text,
                images.pop(0) if question.image is not None else None,
                question.k,
                question.weight,
                question.cutoff,
                plus=_filled(question.plus, images),
                minus=_filled(question.minus, images),
                like=None if like is None else like.id,
                means=self._means,
            ),
        )
        return {
            "model": self.model,
            "generation": state.index.generation,
            "rows": len(state.index),
            "cutoff": answer.cutoff.cosine,
            "cutoff_from": _origin(answer.cutoff),
            "hits": [self._shown(state, hit) for hit in answer.hits],
        }

    def embeddings(self, body: bytes) -> dict:
        """Answer `POST /v1/embeddings`, in the shape of OpenAI's API.

        Raises:
            ValueError: no such request; TimeoutError.
        """
        asked = read_embedding(body, self.limits, self.encoder.dimension, (self.model, "default"))
        vectors = np.empty((len(asked.items), self.encoder.dimension), np.float32)
        places: dict[str, list[int]] = {"text": [], "image": []}
        for place, (kind, _) in enumerate(asked.items):
            places[kind].append(place)
        tokens = 0
        if places["text"]:
            texts = [asked.items[place][1] for place in places["text"]]
            vectors[places["text"]] = self.encoder.encode_text(texts).numpy()
            tokens = self.encoder.call(lambda: self._tokens(texts))
        if places["image"]:
            pictures = [asked.items[place][1] for place in places["image"]]
            vectors[places["image"]] = self._with_pictures(pictures, self.encoder.encode_image).numpy()
        shown = [_packed(vector) if asked.packed else vector.tolist() for vector in vectors]
        return {
            "object": "list",
            "model": self.model,
            "data": [{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(shown)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def picture(self, public: str, side: int) -> bytes:
        """A picture of the index as a JPEG of at most `side` pixels, one of `SIDES`.

        Raises:
            KeyError: no item with this public id, or none with a picture; BadImageError, OSError: it cannot be shown.
        """
        if side not in SIDES:
            raise ValueError(f"side must be one of {', '.join(map(str, SIDES))}")
        state = self.live.now
        with self._decoding:
            jpeg = state.thumbnail(public, side) if side == SIDES[0] else state.jpeg(public, side)
        if jpeg is None:
            raise KeyError("no picture of the index has this id: it may have been removed")
        return jpeg

    def belief(self, public: str) -> bytes:
        """What the scene encoder of a PIR model relies on in a picture of the index, laid over it, as a JPEG.

        Raises:
            KeyError: no such picture, or a model without a belief; BadImageError, OSError: it cannot be shown.
        """
        if not self.has_belief:
            raise KeyError("this model has no belief: only PIR models with an instruction encoder do")
        with self._decoding:
            image = self.live.now.picture(public, SIDES[0])
            if image is None:
                raise KeyError("no picture of the index has this id: it may have been removed")
            grid = self.encoder.call(lambda: self._grid(image))
        image.thumbnail((SIDES[0], SIDES[0]))
        return small_jpeg(overlay(image, grid), SIDES[0])

    def about(self) -> dict:
        """What the page shows of the index and the model."""
        state = self.live.now
        cutoff = state.retriever.chosen_cutoff(compound=self._means and state.subtracts_means)
        return {
            "model": self.model,
            "rows": len(state.index),
            "generation": state.index.generation,
            "cutoff": cutoff.cosine,
            "cutoff_from": _origin(cutoff),
            "belief": self.has_belief,
            "examples": self._examples or examples_of(state),
            "limits": {"body": self.limits.body, "hits": self.limits.hits},
        }

    @property
    def has_belief(self) -> bool:
        """Whether the model shows what it relies on."""
        model = self.encoder.model
        return hasattr(model, "belief") and bool(model.config.use_instruction)

    def _with_pictures(self, encoded: list[str], answer):
        """`answer(pictures)`; few requests have decoded pictures at the same time."""
        if not encoded:
            return answer([])
        deadline = time.monotonic() + self.limits.seconds
        if not self._decoding.acquire(timeout=self.limits.seconds):
            raise TimeoutError("too many pictures are being read: send it again later")
        try:
            return answer(pictures_of(encoded, deadline, most_pixels=self.limits.pixels))
        finally:
            self._decoding.release()

    def _shown(self, state: State, hit: Hit) -> dict:
        public = state.ids.of(hit.id)
        pictured = hit.modality != "text" and (hit.path is not None or hit.collection is not None)
        return {
            "id": public,
            "score": hit.score,
            "name": state.name_of(hit),
            "caption": hit.caption,
            "box": hit.box,
            "picture": f"/pictures/{public}" if pictured else None,
        }

    def _tokens(self, texts: list[str]) -> int:
        limit = self.encoder.text_limit
        return sum(min(len(ids), limit or len(ids)) for ids in self.encoder.tokenizer(texts)["input_ids"])

    def _grid(self, image: Image.Image) -> torch.Tensor:
        inputs = self.encoder.encoder.image_inputs([image])
        return belief_grid(self.encoder.model, inputs["pixel_values"].to(self.encoder.device))[0].cpu()


def examples_of(state: State) -> list[str]:
    """A few short captions of the index; without any, plain words."""
    first = state.index.snapshot.first("caption", 1000)
    captions = (text.partition(" / ")[0] for text in first if text)
    short = [caption for caption in dict.fromkeys(captions) if len(caption) <= LONGEST_EXAMPLE]
    return short[:: max(1, len(short) // 4)][:4] or list(EXAMPLES)


def _origin(cutoff: Cutoff) -> str | None:
    return None if cutoff.cosine is None else cutoff.origin


def _filled(parts: list[tuple[dict, float]], images: list) -> list:
    """Parts as `Retriever.search` takes them; pictures are taken off the front of `images`, in order."""
    return [(part["text"] if "text" in part else images.pop(0), weight) for part, weight in parts]


def _packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


__all__ = ["EXAMPLES", "SIDES", "Service", "examples_of"]
