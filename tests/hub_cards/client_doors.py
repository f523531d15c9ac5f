"""Run in a process of its own: come to a saved model through some doors, and report as JSON what is behind each.

Arguments: where to write the report, the folder with pictures and captions, the source, the doors.
"""

import base64
import json
import os
import sys
from pathlib import Path

from client_load import LABELS, Absent

if os.environ.get("BLOCK_VSEHUB"):
    sys.meta_path.insert(0, Absent())


def pipelines(source, pictures, captions) -> dict:
    """All four pipelines of transformers, the retrieval one twice: by task, and by what the folder says."""
    from transformers import pipeline

    options = {"trust_remote_code": True}
    retrieval = pipeline("image-text-retrieval", model=source, **options).index(pictures)
    inferred = pipeline(model=source, **options).index(captions) if Path(source).is_dir() else retrieval.index(pictures)
    texts = pipeline("feature-extraction", model=source, **options)
    images = pipeline("image-feature-extraction", model=source, **options)
    zero_shot = pipeline("zero-shot-image-classification", model=source, **options)
    return {
        "by text": retrieval.index(pictures)(captions, top_k=3),
        "by both": retrieval({"image": pictures[0], "text": captions[1]}, top_k=2),
        "none": retrieval(captions[0], threshold=2.0),
        "given": retrieval(pictures[0], gallery=captions, top_k=6),
        "inferred": inferred(pictures[1], top_k=6) if Path(source).is_dir() else None,
        "text": texts(captions[0])[0],
        "image": images(pictures[0])[0],
        "scores": {row["label"]: row["score"] for row in zero_shot(pictures[0], candidate_labels=LABELS)},
    }


def sentence_transformers(source, pictures, captions) -> dict:
    """`SentenceTransformer(...).encode`."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(source, trust_remote_code=True)
    return {"text": model.encode(captions).tolist(), "image": model.encode(pictures).tolist()}


def mteb(source, pictures, captions) -> dict:
    """`mteb.get_model` and two tasks whose data are made here."""
    from in_memory_tasks import scores

    return scores(source, pictures, captions)


def endpoint(source, pictures, captions) -> dict:
    """`handler.py` of the folder, as an Inference Endpoint runs it."""
    import io

    from PIL import Image

    sys.path.insert(0, source)
    from handler import EndpointHandler

    def encoded(picture, kind="PNG"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        return base64.b64encode(buffer.getvalue()).decode()

    handler, image = EndpointHandler(source), encoded(pictures[0])
    refused = {}
    for name, request in {
        "bare": {"inputs": "https://example.com/a.jpg"},
        "address": {"inputs": {"image": "https://example.com/a.jpg"}},
        "path": {"inputs": {"image": "/etc/passwd"}},
        "torn": {"inputs": {"image": image[:60]}},
        "cut": {"inputs": {"image": [image, image[: len(image) // 8 * 4]]}},
        "postscript": {"inputs": {"image": encoded(pictures[0].convert("RGB"), "EPS")}},
        "huge": {"inputs": {"image": [encoded(Image.new("1", (9000, 9000)))] * 2}},
        "empty": {"inputs": {"text": " "}},
        "number": {"inputs": {"text": 3}},
        "key": {"inputs": {"url": "x"}},
        "nothing": {},
        "no request": ["x"],
        "no item": {"inputs": {"text": []}},
        "half a letter": {"inputs": {"text": "\ud800"}},
        "parameters": {"inputs": {"text": "a"}, "parameters": ["b"]},
        "labels": {"inputs": {"text": "a"}, "parameters": {"candidate_labels": ["b"]}},
        "many": {"inputs": {"text": ["a"] * 257}},
    }.items():
        try:
            refused[name] = f"answered {handler(request)}"
        except ValueError as error:
            refused[name] = f"refused: {error}"
    return {
        "text": handler({"inputs": {"text": captions}})["text_embeds"],
        "image": handler({"inputs": {"image": [encoded(picture) for picture in pictures]}})["image_embeds"],
        "cosines": handler({"inputs": {"image": image, "text": captions}})["cosines"],
        "scores": handler({"inputs": {"image": image}, "parameters": {"candidate_labels": captions}}),
        "refused": refused,
    }


DOORS = {"pipelines": pipelines, "sentence_transformers": sentence_transformers, "mteb": mteb, "endpoint": endpoint}

if __name__ == "__main__":
    from PIL import Image

    target, material, source, *doors = sys.argv[1:]
    pictures = [Image.open(path) for path in sorted(Path(material).glob("*.png"))]
    captions = json.loads((Path(material) / "captions.json").read_text())
    Path(target).write_text(json.dumps({door: DOORS[door](source, pictures, captions) for door in doors}))
