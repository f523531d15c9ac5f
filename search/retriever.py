"""Search pictures and texts from Python: a model, its processor and an index in one object.

    retriever = Retriever.from_pretrained("org/model")
    retriever.add_images(["a.jpg", "b.jpg"])
    for hit in retriever.search(text="a red boat", k=5):
        print(hit.score, hit.id)
    retriever.save("photos.index")

`text=` is always taken as text: it is never opened as a file or an address.
"""

import itertools
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from ..files.text import is_unicode, printable
from ..modeling.towers import load_errors
from ..processing.encoders import Encoder
from ..processing.load_encoder import encoder_of, load_encoder
from ..processing.scenes import open_any
from .cutoff import LEAST_KEPT, TOO_HIGH, Cutoff, best_of_others, calibrated_cutoff
from .embedding_stream import embed_stream
from .filters import chosen_rows
from .index import Index
from .index_segments import check_ids
from .mixed import centred, search_mixed
from .query import checked, combined, listed
from .rows import Rows
from .stores.copies import kept_in
from .stores.places import open_index
from .vector_index import VectorIndex

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Hit:
    """One hit: its id, its cosine with the query (`score`), and the other fields of its item in the index."""

    id: str
    score: float
    path: str | None = None
    box: list[int] | None = None
    caption: str | None = None
    modality: str | None = None
    row: int | None = None
    collection: str | None = None


class Answer(NamedTuple):
    """Hits, best first; the cut-off that was applied; whether any item met the conditions, hit or not."""

    hits: list[Hit]
    cutoff: Cutoff
    searched: bool


class Retriever:
    """A dual encoder and an index of what it embedded.

    Args:
        model: any dual encoder: of vsehub or transformers, a `SentenceTransformer`, or an `Encoder`.
        processor: its processor; default the one beside its weights.
        index: what to search, or its folder or address; default an empty one in memory.
        width: keep the first so many numbers of each vector; default as the index says, or all.
        vectors: how a new index stores its vectors (`float32`, `float16`, `int8`); one that is given is checked.

    Attributes:
        encoder: the model and its processor as search uses them.
        made_by: the model's `fingerprint`.

    Raises:
        ValueError: a model that does not embed both images and texts.
        IndexFolderError: the index was made with another model or width, or its vectors are stored in another way.
    """

    def __init__(
        self,
        model,
        processor=None,
        index: Index | str | os.PathLike | None = None,
        width: int | None = None,
        vectors: str | None = None,
    ):
        if isinstance(index, (str, os.PathLike)):
            index = open_index(index)
        if width is None and index is not None:
            width = (index.model or {}).get("width")
        self.encoder: Encoder = encoder_of(model, processor).eval().with_width(width)
        self.model, self.processor = self.encoder.model, self.encoder.processor
        self.made_by = self.encoder.identity
        self.index: Index = VectorIndex(self.made_by, vectors=vectors or "float32") if index is None else index
        self.index.check_model(self.made_by)
        self.index.check_vectors(vectors)

    @classmethod
    def from_pretrained(
        cls, model, index=None, processor=None, width=None, wait: float = 0.0, vectors: str | None = None, **kwargs
    ):
        """Load a model and its processor.

        Args:
            model: Hub id or folder of any dual encoder (see `processing.load_encoder`), or a model in memory (then with
                a `processor`, unless one is saved beside its weights).
            index: an `Index`, the folder or address of one, or None for an empty one in memory.
            processor: of the model.
            width: keep the first so many numbers of each vector; default as the index says, or all.
            wait: of `VectorIndex`: seconds that a change waits for another writer of the index.
            vectors: of the class.
            **kwargs: of `AutoModel.from_pretrained`, such as `revision`. `trust_remote_code` is False unless given.
        """
        if isinstance(model, (str, os.PathLike)):
            source = str(model)
            if source.startswith(("/", ".", "~")) and not Path(source).exists():
                raise FileNotFoundError(
                    f"{source}: no such folder; if the model was moved, give its new place with --model"
                )
            with load_errors(source):
                model = load_encoder(source, processor, **kwargs)
        retriever = cls(model, processor, index, width, vectors)
        retriever.index.wait = wait or retriever.index.wait
        return retriever

    @classmethod
    def open(cls, folder, model=None, **kwargs):
        """Open a saved index with the model that made it, or with `model`: a copy in another place, or in memory.

        Args:
            folder: of the index, or its address (`stores.address`), or the index itself, opened.
            model: folder, Hub id, or a model in memory.
            **kwargs: of `from_pretrained`, such as `wait`.

        Raises:
            ValueError: the index names no model, or only the index says whose code would run.
        """
        index = folder if isinstance(folder, Index) else open_index(folder)
        folder = index.name if isinstance(folder, Index) else folder
        if model is None:
            model = (index.model or {}).get("id")
            if not model:
                raise ValueError(f"{folder} does not say where its model is: name it (model=..., --model)")
            if "://" in model or model.startswith(("//", "\\\\")):  # a share: to look at it is a request to its host
                raise ValueError(f"{folder} names the model {model}: an index cannot start a download; give --model")
            if kwargs.get("trust_remote_code"):
                raise ValueError(
                    f"{folder} names the model {model}: an index cannot allow its code to run; give --model"
                )
            if not Path(model).is_dir():
                text = "%s names the model %s, which is now loaded from the Hub or its cache"
                logger.warning(text, printable(folder), printable(model))
            if index.model.get("revision"):
                kwargs = {"revision": index.model["revision"], **kwargs}
        return cls.from_pretrained(model, index, **kwargs)

    def save(self, folder):
        """Write the index to a folder or address without an index; later changes are then written there."""
        self.index = kept_in(self.index, folder)

    def add_images(self, images, ids=None, captions=None, batch_size: int = 32, fast: bool = False) -> list[dict]:
        """Embed and add pictures.

        Args:
            images: paths, PIL images, or bytes of encoded ones.
            ids: a text for each; default the absolute path, and `image-N` for a picture in memory.
            captions: shown with hits; not searched.
            batch_size, fast: of `embedding_stream.embed_stream`.

        Returns:
            What could not be used, as dictionaries of `id`, `path` and `problem`.

        Raises:
            TypeError: something else than a picture.
            ValueError: ids or captions of another number, that are no texts, or ids that are given twice.
        """
        images = [images] if isinstance(images, (str, os.PathLike)) or _in_memory(images) else list(images)
        for row, image in enumerate(images):
            if not _in_memory(image) and not isinstance(image, (str, os.PathLike)):
                raise TypeError(f"add_images takes paths, PIL images and bytes; item {row} is a {type(image).__name__}")
        items = [_image_item(image, name) for image, name in zip(images, self._free_names("image", len(images)))]
        items = _with(_with(items, ids, "id"), captions, "caption")
        check_ids([item["id"] for item in items])  # now, not after hours of embedding
        sources = [image if _in_memory(image) else os.fspath(image) for image in images]
        stream = embed_stream(self.encoder, zip(items, sources), batch_size, fast=fast)
        batches = list(stream)
        vectors = np.concatenate([part for _, part, _ in batches]) if batches else np.zeros((0, 0), np.float32)
        self.index.allow({os.path.dirname(item["path"]) for item in items if item.get("path")})
        self._add(vectors, [item for items, _, _ in batches for item in items], ids is None)
        return [problem for *_, problems in batches for problem in problems]

    def add_texts(self, texts, ids=None):
        """Embed and add texts, to be found by pictures or by other texts; ids default to `text-N`."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        names = self._free_names("text", len(texts))
        items = [{"id": name, "caption": text, "modality": "text"} for name, text in zip(names, texts)]
        items = _with(items, ids, "id")
        check_ids([item["id"] for item in items])
        self._add(self.encoder.encode_text(texts).numpy(), items, ids is None)

    def _add(self, vectors: np.ndarray, items: list[dict], named: bool):
        """Add rows; items without a path that were `named` here get other names where theirs were taken meanwhile.

        Another thread, or another process that this one waits for, may have added pictures while these were embedded.
        """
        with self.index.lock():
            mine = [item for item in items if named and not item.get("path")]
            now = self.index.snapshot
            if mine and len(now.not_deleted(now.rows_of(pa.array([item["id"] for item in mine], pa.string())))):
                for item, name in zip(mine, self._free_names(mine[0]["modality"], len(mine))):
                    item["id"] = name
            self.index.add(vectors, items)

    def search(
        self,
        text: str | None = None,
        image=None,
        k: int = 10,
        weight: float = 0.5,
        cutoff="auto",
        among=None,
        plus=(),
        minus=(),
        like: str | None = None,
        where=None,
        path: str | None = None,
        means: bool = True,
    ) -> list[Hit]:
        """Find what is nearest to a text, a picture, or a picture changed by a text.

        Args:
            text: what to look for.
            image: a PIL image or the path of one. With `text`, the query is the normalised weighted sum of both.
            k: maximum number of hits.
            weight: of the text in that sum; the picture has 1 - weight.
            cutoff: minimum cosine of a hit, see `chosen_cutoff`; None: no minimum. Where one that was not given hides
                all, a warning is logged.
            among: `image` or `text`: only these.
            plus, minus: further parts of the query, see `embed_query`.
            like: id of an item of the index, whose vector is the query in place of a text or picture; the item itself
                is no hit.
            where, path: conditions on the hits, see `filters.chosen_rows`; applied before the ranking, exactly.
            means: where pictures and texts are ranked together, subtract the mean of its modality from each vector, if
                the model's configuration has the means (see `mixed`). Scores are cosines after that, and a calibrated
                cut-off, which is one of cosines before it, is not used.

        Raises:
            ValueError: no query or two, a weight outside 0..1, k < 1, a cut-off that is NaN, an unknown id or field, or
                what `embed_query` refuses.
        """
        answer = self.answer(text, image, k, weight, cutoff, among, plus, minus, like, where, path, means)
        if not answer.hits and answer.searched and answer.cutoff.origin != "given":
            logger.warning("no hit reaches the %s; cutoff=None shows the nearest", answer.cutoff)
        return answer.hits

    def answer(
        self,
        text: str | None = None,
        image=None,
        k: int = 10,
        weight: float = 0.5,
        cutoff="auto",
        among=None,
        plus=(),
        minus=(),
        like: str | None = None,
        where=None,
        path: str | None = None,
        means: bool = True,
    ) -> Answer:
        """As `search`, with the cut-off that was applied; that it hides all is left to the caller to say."""
        if like is not None and (text is not None or image is not None):
            raise ValueError("like is a query of its own: leave out the text and the image, or give them as plus")
        now = self.index.snapshot  # another thread may change the index
        chosen = chosen_rows(now, among, where, path)
        row = None if like is None else now.row_of(like)
        if row is not None:
            chosen = np.ones(now.total, bool) if chosen is None else chosen
            chosen[row] = False
        subtracted = self.means_for(now, chosen) if means else None
        if row is None:
            query = self.embed_query(text, image, weight, plus, minus, subtracted)
        else:
            kind = "text" if now.items([row])[0]["modality"] == "text" else "image"
            own = _less(now.vectors([row])[0], subtracted, kind)
            query = self._changed(own, plus, minus, subtracted)
        compound = bool(plus or minus or like is not None or subtracted)
        limit = self.chosen_cutoff(image, cutoff, compound)
        if subtracted is None:
            rows, scores = now.search(query[None], k, limit.cosine, chosen)[0]
        else:
            rows, scores = search_mixed(now, query, subtracted, k, limit.cosine, chosen)
        hits = [
            Hit(score=float(score), **{name: item[name] for name in Hit.__dataclass_fields__ if name != "score"})
            for item, score in zip(now.items(rows), scores)
        ]
        searched = bool(hits or (len(now) if chosen is None else (chosen & ~now.deleted).any()))
        return Answer(hits, limit, searched)

    def means_for(self, snapshot: Rows, chosen: np.ndarray | None = None) -> dict[str, np.ndarray] | None:
        """The mean vectors (D,) of `image` and `text` that a search subtracts; None: nothing is subtracted.

        Args:
            snapshot: of the index.
            chosen: which rows are searched; only where both pictures and texts are among them, means are subtracted.
        """
        means = self.encoder.means
        if means is None or not snapshot.is_mixed(chosen):
            return None
        return {kind: mean.double().numpy() for kind, mean in means.items()}

    def chosen_cutoff(
        self, image=None, cutoff: float | Literal["auto"] | None = "auto", compound: bool = False
    ) -> Cutoff:
        """The minimum cosine of a hit, and where it comes from.

        `auto` is for a query that is one text: the one that was calibrated for this index; without one, the default of
        the model, if it has one for vectors of this width; else none. They are cosines of texts with pictures: those of
        pictures, of sums and after a subtraction of means (`compound`) have other sizes.
        """
        if cutoff != "auto":
            return Cutoff(cutoff)
        if compound or image is not None:
            return Cutoff(None)
        own = (self.index.cutoff or {}).get("text")
        if own is not None:
            return Cutoff(own, "index")
        default = self.encoder.text_cutoff
        return Cutoff(None) if default is None else Cutoff(default, "model")

    def embed_query(
        self, text=None, image=None, weight: float = 0.5, plus=(), minus=(), means: dict | None = None
    ) -> np.ndarray:
        """The unit vector (D,) that `search` looks for.

        Args:
            text, image, weight: of `search`.
            plus, minus: texts, or pictures (PIL, bytes, `Path`), or pairs of one and a weight (default 1): they are
                added to the unit vector of the rest and subtracted from it, and the sum is normalised.
            means: of `means_for`: subtracted from the vector of each part.

        Raises:
            ValueError: nothing to look for, a weight that is out of range, parts that cancel each other.
        """
        if text is None and image is None and plus:
            return self._changed(None, plus, minus, means)
        return self._changed(self._embed(text, image, weight, means), plus, minus, means)

    def _changed(self, base: np.ndarray | None, plus, minus, means: dict | None) -> np.ndarray:
        """The unit vector of a query, or None, plus and minus further parts."""
        signed = [(*checked(part), 1) for part in listed(plus)] + [(*checked(part), -1) for part in listed(minus)]
        if base is not None and not signed:
            return base
        parts = [] if base is None else [(base, 1.0)]
        for query, weight, sign in signed:
            text, image = (query, None) if isinstance(query, str) else (None, query)
            parts.append((self._embed(text, image, means=means), sign * weight))
        return combined(parts)

    def _embed(self, text=None, image=None, weight: float = 0.5, means: dict | None = None) -> np.ndarray:
        if text is None and image is None:
            raise ValueError("give a text, an image, or both")
        if not 0 <= weight <= 1:
            raise ValueError(f"weight is the text's share, between 0 and 1, not {weight}")
        parts = []
        if text is not None:
            parts.append((weight, _less(self.encoder.encode_text([text])[0].numpy(), means, "text")))
        if image is not None:
            image = image if hasattr(image, "getbands") else open_any(image)
            parts.append((1 - weight, _less(self.encoder.encode_image([image])[0].numpy(), means, "image")))
        query = parts[0][1] if len(parts) == 1 else sum(share * part for share, part in parts)
        return query / np.linalg.norm(query)

    def calibrate(
        self, images, texts, owners=None, off_topic=None, reject_share: float = 0.95, force: bool = False
    ) -> dict:
        """Choose and keep the cut-off of text queries, see `cutoff.calibrated_cutoff`.

        Args:
            images: paths, bytes or PIL images of a validation split.
            texts: their captions.
            owners: number of the image that each text describes; default text i describes image i.
            off_topic: texts that fit nothing in this index. Without them, each validation text is an irrelevant query
                among the images of the others; that is stricter, because some of these images may fit it.
            reject_share: fraction of irrelevant queries that should return no hit.
            force: keep a cut-off that hides most right answers, too.

        Raises:
            ValueError: owners that do not fit, a picture that cannot be used, a cut-off that hides most right answers,
                or what `calibrated_cutoff` refuses.
        """
        images, texts = list(images), list(texts)
        owners = np.arange(len(texts)) if owners is None else np.asarray(owners, np.int64)
        if len(owners) != len(texts) or not len(texts) or owners.min() < 0 or owners.max() >= len(images):
            raise ValueError(f"owners must number, for each of {len(texts)} texts, one of {len(images)} images")
        text_embeds = self.encoder.encode_text(texts).numpy()
        entries = (({"id": f"validation image {n}"}, image) for n, image in enumerate(images))
        batches = list(embed_stream(self.encoder, entries))
        problems = [problem["problem"] for *_, several in batches for problem in several]
        if problems:
            raise ValueError(f"{problems[0]} (and {len(problems) - 1} more): leave such validation images out")
        image_embeds = np.concatenate([part for _, part, _ in batches])
        off_topic = [] if off_topic is None else listed(off_topic)
        if off_topic:
            answers = self.index.search(self.encoder.encode_text(off_topic).numpy(), 1)
            noise = [scores[0] for _, scores in answers if len(scores)]
        else:
            noise = best_of_others(text_embeds, image_embeds, owners)
        cutoff = calibrated_cutoff((text_embeds * image_embeds[owners]).sum(axis=1), noise, reject_share)
        if cutoff["kept"] < LEAST_KEPT and not force:
            raise ValueError(TOO_HIGH.format(cutoff["text"], 100 * (1 - cutoff["kept"])))
        self.index.note(cutoff=cutoff)
        return cutoff

    def _free_names(self, kind: str, count: int) -> list[str]:
        """Names `kind-N` that no item has."""
        taken = set(self.index.column("id"))
        return list(itertools.islice((name for n in itertools.count() if (name := f"{kind}-{n}") not in taken), count))


def _less(vector: np.ndarray, means: dict | None, kind: str) -> np.ndarray:
    """A unit vector (D,) less the mean of its modality, normalised again; as it is without means."""
    return vector if means is None else centred(vector, means[kind]).astype(np.float32)


def _in_memory(image) -> bool:
    return isinstance(image, bytes) or hasattr(image, "getbands")


def _image_item(image, name: str) -> dict:
    if _in_memory(image):
        return {"id": name, "modality": "image"}
    path = os.path.abspath(os.fspath(image))
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the stream reports it
        return {"id": path, "path": path, "modality": "image"}
    return {"id": path, "path": path, "modality": "image", "size": status.st_size, "stamp": status.st_mtime_ns}


def _with(items: list[dict], given, name: str) -> list[dict]:
    """Items with what was given for each under a name; None leaves them as they are.

    Raises:
        ValueError: another number of values, or one that is no text or no Unicode.
    """
    if given is None:
        return items
    given = [given] if isinstance(given, str) else list(given)
    if len(given) != len(items):
        raise ValueError(f"{len(given)} {name}s for {len(items)} items")
    for row, value in enumerate(given):
        if not isinstance(value, str) and (value is not None or name == "id"):
            raise ValueError(f"{name} {row} is {value!r}, a {type(value).__name__}: make it a text, str(...)")
        if value is not None and not is_unicode(value):
            raise ValueError(f"{name} {row} is not Unicode text: {value!r}")
    return [{**item, name: value} for item, value in zip(items, given)]


__all__ = ["Answer", "Hit", "Retriever"]
