"""A generated image-text dataset in which dense text matters: small scenes, short captions that leave most unsaid.

Each scene has three or four objects (shape, colour, place in a 2 x 2 grid) on a tinted, noisy background. A dense text
lists all of them; a short caption mentions one or two, often without their place, so that it fits other scenes too.
That is the imbalance D2S-VSE is about: what a picture holds and what a caption says of it.
"""

import io
import random
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value

SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 160, 70),
    "blue": (40, 80, 214),
    "yellow": (240, 200, 30),
    "purple": (150, 60, 180),
    "black": (25, 25, 25),
}
PLACES = ("at the top left", "at the top right", "at the bottom left", "at the bottom right")
SIZE = 48  # pixels
WORDS = "a an and at the top bottom left right there is near picture with of ."

FEATURES = Features(
    {
        "image": Image(),
        "captions": List(Value("string")),
        "dense_text": Value("string"),
        "image_id": Value("string"),
    }
)


def make_scene(rng: random.Random) -> list[tuple[str, str, int]]:
    """Draw a scene: (colour, shape, place) of three or four objects, one per place."""
    places = rng.sample(range(4), rng.choice((3, 4)))
    return [(rng.choice(tuple(COLOURS)), rng.choice(SHAPES), place) for place in sorted(places)]


def short_caption(scene, rng: random.Random) -> str:
    """Mention one or two objects of the scene; each keeps its place half of the time."""
    chosen = rng.sample(scene, rng.choice((1, 2, 2)))
    parts = [_phrase(*thing, placed=rng.random() < 0.5) for thing in chosen]
    opening = rng.choice(("", "there is ", "a picture with "))
    return opening + " and ".join(parts)


def dense_text(scene, rng: random.Random) -> str:
    """List every object with its place, in random order."""
    things = rng.sample(scene, len(scene))
    return " . ".join(f"there is {_phrase(*thing, placed=True)}" for thing in things) + " ."


def draw(scene, rng: random.Random):
    """Render a scene as a PIL image of `SIZE` x `SIZE`."""
    import numpy as np
    from PIL import Image as Pillow
    from PIL import ImageDraw

    scale = 4  # drawn large and shrunk: smooth edges
    tint = [rng.randint(170, 250) for _ in range(3)]
    image = Pillow.new("RGB", (SIZE * scale, SIZE * scale), tuple(tint))
    pen = ImageDraw.Draw(image)
    half = SIZE * scale // 2
    for colour, shape, place in scene:
        radius = rng.uniform(0.24, 0.36) * half
        x = half * (place % 2) + half / 2 + rng.uniform(-0.1, 0.1) * half
        y = half * (place // 2) + half / 2 + rng.uniform(-0.1, 0.1) * half
        _draw_shape(pen, shape, x, y, radius, COLOURS[colour])
    pixels = np.asarray(image.resize((SIZE, SIZE), Pillow.Resampling.BOX), np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 6, pixels.shape)
    return Pillow.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def generate(count: int, seed: int, captions: int = 3) -> Dataset:
    """Make `count` scenes with `captions` short captions each; equal seeds give equal data."""
    rows = []
    for index in range(count):
        rng = random.Random(f"{seed}-{index}")
        scene = make_scene(rng)
        buffer = io.BytesIO()
        draw(scene, rng).save(buffer, "PNG")
        rows.append(
            {
                "image": {"bytes": buffer.getvalue(), "path": None},
                "captions": [short_caption(scene, rng) for _ in range(captions)],
                "dense_text": dense_text(scene, rng),
                "image_id": f"scene-{seed}-{index}",
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def write_dataset(folder: str | Path, train: int, validation: int, test: int, seed: int = 0):
    """Write parquet splits that `datasets.load_dataset(folder)` reads."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate((("train", train), ("validation", validation), ("test", test))):
        generate(count, seed=1000 * number + seed).to_parquet(folder / f"{split}-00000-of-00001.parquet")


def write_towers(folder: str | Path, seed: int = 0) -> tuple[str, str]:
    """Write untrained towers that fit the scenes (a ResNet, a BERT and its tokenizer) and return their paths."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer, ResNetConfig, ResNetModel

    torch.manual_seed(seed)
    vision, text = Path(folder) / "vision", Path(folder) / "text"
    ResNetModel(
        ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    ).save_pretrained(vision)
    text.mkdir(parents=True, exist_ok=True)
    words = dict.fromkeys([*WORDS.split(), *COLOURS, *SHAPES])
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (text / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(text / "vocab.txt")).save_pretrained(text)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=256,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).save_pretrained(text)
    return str(vision), str(text)


def _phrase(colour: str, shape: str, place: int, placed: bool) -> str:
    return f"a {colour} {shape}" + (f" {PLACES[place]}" if placed else "")


def _draw_shape(pen, shape, x, y, radius, colour):
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=int(radius * 0.45))
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    else:
        arm = radius * 0.35
        pen.rectangle((x - radius, y - arm, x + radius, y + arm), fill=colour)
        pen.rectangle((x - arm, y - radius, x + arm, y + radius), fill=colour)
