"""`pipeline("image-text-retrieval", ...)`: index a gallery of images or texts once, then query it many times.

    pipe = pipeline("image-text-retrieval", model="org/name", trust_remote_code=True)
    pipe.index([Image.open("a.jpg"), Image.open("b.jpg")])
    pipe("a dog in the snow", top_k=1)  # [{"index": 0, "score": 0.31}]

A score is a cosine. Queries and gallery may each be texts or PIL images, mixed as well.
"""

import numbers

import torch
from transformers.pipelines.base import Pipeline

from ..modeling.modeling_dual_encoder import checked_images, checked_texts


class ImageTextRetrievalPipeline(Pipeline):
    """Rank a gallery by cosine with each query.

    Calls take one query or a list of them: a text, a PIL image, or a dict `{"image": ..., "text": ...}` whose two
    embeddings are added. They return, for each, a list of `{"index", "score"}`, best first; `index` counts the gallery.

    Call parameters:
        top_k: how many hits (default 5; all of a smaller gallery).
        gallery: a list of images or texts for this call alone, in place of the one that was indexed.
        threshold: leave out hits below this cosine; there may be none left.
    """

    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gallery = None

    def index(self, items, batch_size: int = 32):
        """Embed images or texts (N of them) and keep them; returns the pipeline.

        Raises:
            TypeError: an item is neither text nor a PIL image.
        """
        self.gallery = self._embed(items, batch_size)
        return self

    def __call__(self, inputs, **kwargs):
        """Rank the gallery for one query, or for each of a list."""
        single = not _is_several(inputs)
        queries = [inputs] if single else list(inputs)
        if not queries:
            return []
        for row, query in enumerate(queries):
            _parts(query, row)
        results = super().__call__(queries, **kwargs)
        return results[0] if single else results

    def _sanitize_parameters(self, top_k=None, gallery=None, threshold=None, **kwargs):
        if kwargs:
            raise TypeError(f"image-text-retrieval has no parameter {sorted(kwargs)}; see top_k, gallery, threshold")
        if top_k is not None and (not isinstance(top_k, numbers.Integral) or top_k < 1):
            raise ValueError(f"top_k must be a whole number of at least 1, got {top_k!r}")
        if threshold is not None and not (isinstance(threshold, numbers.Real) and threshold == threshold):
            raise ValueError(f"threshold must be a cosine, got {threshold!r}")
        ranking = {"top_k": top_k, "threshold": threshold}
        ranking = {name: value for name, value in ranking.items() if value is not None}
        if gallery is not None:
            ranking["gallery"] = self._embed(gallery, 32)
        return {}, {}, ranking

    def preprocess(self, inputs):
        """Keep the query as it is: the model prepares texts and images itself."""
        return {"query": inputs}

    def _forward(self, model_inputs):
        query = model_inputs["query"]  # a list of them where `batch_size` is more than 1
        parts = [_parts(each, row) for row, each in enumerate(query if isinstance(query, list) else [query])]
        embeds = self._embed([item for each in parts for item in each], 32).split([len(each) for each in parts])
        return {"embeds": torch.nn.functional.normalize(torch.stack([each.sum(0) for each in embeds]), dim=-1)}

    def postprocess(self, model_outputs, top_k=5, gallery=None, threshold=None):
        """Cosines to hits, best first."""
        gallery = self.gallery if gallery is None else gallery
        if gallery is None:
            raise ValueError("there is no gallery yet: call pipe.index(images or texts) or pass gallery=[...]")
        scores = gallery @ model_outputs["embeds"].flatten()
        best = scores.topk(min(int(top_k), len(scores)))
        hits = [{"index": int(row), "score": float(score)} for score, row in zip(best.values, best.indices)]
        return [hit for hit in hits if threshold is None or hit["score"] >= threshold]

    def _embed(self, items, batch_size: int) -> torch.Tensor:
        """Unit vectors of texts and images in the order given, (N, D)."""
        items = list(items) if _is_several(items) else [items]
        if not items:
            raise ValueError("the gallery is empty")
        is_text = [isinstance(item, str) for item in items]
        embeds = torch.empty(len(items), self.model.config.projection_dim, dtype=torch.float32, device="cpu")
        sides = ((True, checked_texts, self.model.encode_text), (False, checked_images, self.model.encode_image))
        rows_of = {wanted: [row for row, text in enumerate(is_text) if text == wanted] for wanted in (True, False)}
        for wanted, check, _ in sides:  # all items before the first is embedded; errors count the whole gallery
            check([items[row] for row in rows_of[wanted]], rows_of[wanted])
        for wanted, _, encode in sides:
            if rows := rows_of[wanted]:
                embeds[rows] = encode([items[row] for row in rows], batch_size, processor=self.processor)
        return embeds


def _is_several(items) -> bool:
    """Whether these are several items: a list, an array of texts, a column of pandas; a picture cannot be iterated."""
    return hasattr(items, "__iter__") and not isinstance(items, (str, bytes, dict))


def _parts(query, row: int) -> list:
    """The text and the picture of a query.

    Raises:
        TypeError: something else than a query; the message names its row.
        ValueError: a text that is empty or no Unicode.
    """
    if isinstance(query, dict):
        if not query or set(query) - {"image", "text"}:
            raise TypeError(f"query {row} is a dict of {sorted(map(str, query))}: `image`, `text` or both are read")
        parts = {"image": query.get("image"), "text": query.get("text")}
        return [_checked(parts[name], name == "text", row) for name in parts if name in query]
    return [_checked(query, isinstance(query, str), row)]


def _checked(item, is_text: bool, row: int):
    return (checked_texts if is_text else checked_images)((item,), (row,))[0]


__all__ = ["ImageTextRetrievalPipeline"]
