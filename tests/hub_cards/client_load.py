"""Run in a process of its own: load models as a stranger does, and report as JSON what they compute.

Arguments: where to write the report, the folder with pictures and captions, and a JSON list of looks
`{"source": ..., "options": {...}, "resave": folder or null}`. With `BLOCK_VSEHUB` set, vsehub cannot be imported.
"""

import json
import os
import sys
from pathlib import Path


class Absent:
    """An import hook that makes vsehub look uninstalled."""

    def find_spec(self, name, path=None, target=None):
        """Refuse vsehub, leave the rest to others."""
        if name.partition(".")[0] == "vsehub":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


if os.environ.get("BLOCK_VSEHUB"):
    sys.meta_path.insert(0, Absent())

LABELS = ["dog", "red ball", "bridge over the river"]


def compute(model, processor, material) -> dict:
    """What a model makes of the pictures and captions: with its processor passed, and with the one it finds."""
    import torch
    from PIL import Image

    pictures = [Image.open(path) for path in sorted(Path(material).glob("*.png"))]
    captions = json.loads((Path(material) / "captions.json").read_text())
    inputs = processor(images=pictures, text=captions, return_tensors="pt")
    with torch.no_grad():
        cosines = model(**inputs).logits_per_image / model.config.logit_scale
    return {
        "cosines": cosines.tolist(),
        "text": model.encode_text(captions).tolist(),
        "image": model.encode_image(pictures).tolist(),
        "tokens": inputs["input_ids"].shape[1],
    }


def look(source, options, material, resave=None) -> dict:
    """Load everything that Auto classes and the pipeline load, and report."""
    from PIL import Image
    from transformers import AutoConfig, AutoModel, AutoProcessor, pipeline

    config = AutoConfig.from_pretrained(source, **options)
    model = AutoModel.from_pretrained(source, **options)
    processor = AutoProcessor.from_pretrained(source, **options)
    report = compute(model, processor, material)
    report["classes"] = [type(thing).__module__ for thing in (config, model, processor, model._own_processor())]
    zero_shot = pipeline("zero-shot-image-classification", model=source, **options)
    picture = Image.open(sorted(Path(material).glob("*.png"))[0])
    report["scores"] = {row["label"]: row["score"] for row in zero_shot(picture, candidate_labels=LABELS)}
    if resave:
        model.save_pretrained(resave)
        processor.save_pretrained(resave)
    return report


if __name__ == "__main__":
    import transformers

    target, material, looks = sys.argv[1:]
    report = {
        "transformers": transformers.__version__,
        "looks": [look(material=material, **one) for one in json.loads(looks)],
    }
    Path(target).write_text(json.dumps(report))
