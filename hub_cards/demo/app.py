"""A Space: search a gallery of pictures by text or by picture; for PIR, see which parts of a picture it relies on.

Set `MODEL` to a Hub id or folder (`REVISION` pins it) and put pictures into `gallery/`. Only `AutoModel` is used.
"""

import os
from pathlib import Path

import gradio as gr
import torch
from belief_map import belief_grid, overlay  # beside this file: a copy of plots/belief_map.py
from PIL import Image
from transformers import AutoModel, AutoProcessor

MODEL = os.environ.get("MODEL", "org/name")
OPTIONS = {"trust_remote_code": True, "revision": os.environ.get("REVISION", "main")}
GALLERY = Path(os.environ.get("GALLERY", "gallery"))
KINDS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")  # some other formats of Pillow start a process (Ghostscript)
PIXELS = 64_000_000  # of an upload; Pillow refuses twice as many


model = AutoModel.from_pretrained(MODEL, **OPTIONS).eval()
processor = AutoProcessor.from_pretrained(MODEL, **OPTIONS)
home = GALLERY.resolve()
paths = sorted(path for path in GALLERY.rglob("*") if path.suffix.lower() in KINDS)
paths = [
    path for path in paths if path.is_file() and path.resolve().is_relative_to(home)
]  # not outside the folder by a link
if not paths:
    raise SystemExit(f"no pictures in {GALLERY.resolve()}: put some there")
index = torch.cat([model.encode_image([Image.open(path, formats=FORMATS)], processor=processor) for path in paths])
has_belief = getattr(model, "instruction_model", None) is not None


def search(text: str, image, count: int):
    """Rank the gallery for a text, a picture, or both (their embeddings are added)."""
    parts = []
    if (text or "").strip():
        parts.append(model.encode_text([text], processor=processor))
    if image is not None:
        parts.append(model.encode_image([image], processor=processor))
    if not parts:
        raise gr.Error("Type some words or give a picture.")
    query = torch.nn.functional.normalize(sum(parts), dim=-1)
    scores = (index @ query.t()).squeeze(1)
    best = scores.topk(min(int(count), len(paths)))
    return [(str(paths[row]), f"{paths[row].name}: {score:.3f}") for score, row in zip(best.values, best.indices)]


def believe(image):
    """Lay the belief map over a picture: light where the belief is high."""
    if image is None:
        raise gr.Error("Give a picture.")
    grid = belief_grid(model, processor(images=image, return_tensors="pt")["pixel_values"])[0]
    return overlay(image.convert("RGB").resize((448, 448)), grid)


with gr.Blocks(title="Image-text search") as demo:
    gr.Markdown(f"# Search {len(paths)} pictures\n\nModel: `{MODEL}`. A score is a cosine, not a probability.")
    with gr.Tab("Search"):
        with gr.Row():
            words = gr.Textbox(label="Words", max_length=1000, placeholder="two boats at a pier", elem_id="words")
            picture = gr.Image(label="or a picture", type="pil", height=180)
            top = gr.Slider(1, 24, value=8, step=1, label="How many")
        button = gr.Button("Search", variant="primary", elem_id="search")
        hits = gr.Gallery(label="Best first", columns=4, elem_id="hits")
        gr.on([button.click, words.submit], search, [words, picture, top], hits)
    if has_belief:
        with gr.Tab("Belief"):
            given = gr.Image(label="A picture", type="pil", height=300)
            shown = gr.Image(label="What the scene encoder believes", elem_id="belief", height=480)
            given.change(believe, given, shown)

if __name__ == "__main__":
    Image.init()
    Image.ID[:] = FORMATS  # of uploads, too, which gradio opens
    Image.MAX_IMAGE_PIXELS = PIXELS
    demo.launch(
        server_name=os.environ.get("HOST", "127.0.0.1"),
        allowed_paths=[str(path.resolve()) for path in paths],  # only the pictures, no other files of the folder
        max_file_size="20mb",
    )
