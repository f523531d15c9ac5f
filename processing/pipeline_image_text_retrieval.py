"""`pipeline("image-text-retrieval", ...)`: index a gallery of images or texts once, then query it many times.

    pipe = pipeline("image-text-retrieval", model="org/name", trust_remote_code=True)
    pipe.index([Image.open("a.jpg"), Image.open("b.jpg")])
    pipe("a dog in the snow", top_k=1)  # [{"index": 0, "score": 0.31}]

A score is a cosine. Queries and gallery may each be texts or PIL images, mixed as well.
"""

import torch
from transformers.pipelines.base import Pipeline


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
        single = not isinstance(inputs, (list, tuple))
        if not single and not inputs:
            return []
        results = super().__call__([inputs] if single else list(inputs), **kwargs)
        return results[0] if single else results

    def _sanitize_parameters(self, top_k=None, gallery=None, threshold=None, **kwargs):
        if kwargs:
            raise TypeError(f"image-text-retrieval has no parameter {sorted(kwargs)}; see top_k, gallery, threshold")
        if top_k is not None and (not isinstance(top_k, int) or top_k < 1):
            raise ValueError(f"top_k must be a whole number of at least 1, got {top_k!r}")
        if threshold is not None and not (isinstance(threshold, (int, float)) and threshold == threshold):
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
        query = model_inputs["query"]
        parts = [query[name] for name in ("image", "text") if name in query] if isinstance(query, dict) else [query]
        if not parts:
            raise TypeError("a query is a text, a PIL image, or a dict with `image`, `text` or both")
        return {"embeds": torch.nn.functional.normalize(self._embed(parts, 32).sum(0), dim=-1)}

    def postprocess(self, model_outputs, top_k=5, gallery=None, threshold=None):
        """Cosines to hits, best first."""
        gallery = self.gallery if gallery is None else gallery
        if gallery is None:
            raise ValueError("there is no gallery yet: call pipe.index(images or texts) or pass gallery=[...]")
        scores = gallery @ model_outputs["embeds"]
        best = scores.topk(min(top_k, len(scores)))
        hits = [{"index": int(row), "score": float(score)} for score, row in zip(best.values, best.indices)]
        return [hit for hit in hits if threshold is None or hit["score"] >= threshold]

    def _embed(self, items, batch_size: int) -> torch.Tensor:
        """Unit vectors of texts and images in the order given, (N, D)."""
        items = list(items) if isinstance(items, (list, tuple)) else [items]
        if not items:
            raise ValueError("the gallery is empty")
        is_text = [isinstance(item, str) for item in items]
        embeds = torch.empty(len(items), self.model.config.projection_dim, device="cpu")
        for wanted, encode in ((True, self.model.encode_text), (False, self.model.encode_image)):
            rows = [row for row, text in enumerate(is_text) if text == wanted]
            if rows:
                embeds[rows] = encode([items[row] for row in rows], batch_size, processor=self.processor)
        return embeds


__all__ = ["ImageTextRetrievalPipeline"]
