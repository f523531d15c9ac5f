"""A generated image-text dataset in which dense text matters: a short caption mentions little of its scene.

Each scene has three or four coloured shapes on a tinted, noisy background, and neighbours that differ from it in one.
A dense text lists all objects; a short caption, of which there are two a scene, mentions one or two, so that it fits
other scenes too. That is the imbalance D2S-VSE is about: what a picture holds and what a caption says of it.
"""

import io
import random
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value

from ..files.whole import whole_path

SHAPES = ("circle", "ring", "square", "triangle", "cross")
COLOURS = {
    "red": (214, 40, 40),
    "green": (44, 160, 70),
    "blue": (40, 80, 214),
    "yellow": (240, 200, 30),
    "purple": (150, 60, 180),
    "black": (25, 25, 25),
}
SIZE = 48  # pixels
FAMILY = 4  # scenes in a row that differ in one object, so that details matter
WORDS = "a and there is picture with ."

FEATURES = Features(
    {
        "image": Image(),
        "captions": List(Value("string")),
        "dense_text": Value("string"),
        "image_id": Value("string"),
    }
)


def make_scene(rng: random.Random) -> list[tuple[str, str]]:
    """Draw a scene: (colour, shape) of three or four objects."""
    return [make_thing(rng) for _ in range(rng.choice((3, 4)))]


def make_thing(rng: random.Random) -> tuple[str, str]:
    """Draw one object."""
    return rng.choice(tuple(COLOURS)), rng.choice(SHAPES)


def vary(scene, rng: random.Random) -> list[tuple[str, str]]:
    """Redraw one object of a scene: what a neighbouring frame of a video, or a near-duplicate photo, would show."""
    index = rng.randrange(len(scene))
    return [*scene[:index], make_thing(rng), *scene[index + 1 :]]


def short_caption(scene, rng: random.Random) -> str:
    """Mention one or two objects of the scene."""
    things = rng.sample(scene, rng.choice((1, 2, 2)))
    return rng.choice(("", "there is ", "a picture with ")) + " and ".join(map(phrase, things))


def dense_text(scene, rng: random.Random) -> str:
    """List every object, in random order."""
    return "there is " + " and ".join(map(phrase, rng.sample(scene, len(scene))))


def phrase(thing: tuple[str, str]) -> str:
    """Name an object."""
    return "a {} {}".format(*thing)


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
    for (colour, shape), place in zip(scene, rng.sample(range(4), len(scene))):
        radius = rng.uniform(0.26, 0.36) * half
        x = half * (place % 2) + half / 2 + rng.uniform(-0.1, 0.1) * half
        y = half * (place // 2) + half / 2 + rng.uniform(-0.1, 0.1) * half
        _draw_shape(pen, shape, x, y, radius, COLOURS[colour])
    pixels = np.asarray(image.resize((SIZE, SIZE), Pillow.Resampling.BOX), np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 6, pixels.shape)
    return Pillow.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def generate(count: int, seed: int, captions: int = 2) -> Dataset:
    """Make `count` scenes with `captions` short captions each; equal seeds give equal data."""
    rows = []
    for index in range(count):
        rng = random.Random(f"{seed}-{index}")
        scene = make_scene(random.Random(f"{seed}-family-{index // FAMILY}"))
        scene = vary(scene, rng) if index % FAMILY else scene
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
    for number, (split, count) in enumerate((("train", train), ("validation", validation), ("test", test))):
        with whole_path(Path(folder) / f"{split}-00000-of-00001.parquet") as draft:
            generate(count, seed=1000 * number + seed).to_parquet(draft)


def write_towers(folder: str | Path, seed: int = 0) -> tuple[str, str]:
    """Write untrained towers that fit the scenes (a ResNet, a BERT and its tokenizer) and return their paths."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(seed)
    vision, text = Path(folder) / "vision", Path(folder) / "text"
    ResNetModel(
        ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    ).save_pretrained(vision)
    write_text_tower(text, [*WORDS.split(), *COLOURS, *SHAPES])
    return str(vision), str(text)


def write_text_tower(folder: str | Path, words: list[str]):
    """Write an untrained two-layer BERT over `words`, and its tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
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
    ).save_pretrained(folder)


def _draw_shape(pen, shape, x, y, radius, colour):
    box = (x - radius, y - radius, x + radius, y + radius)
    line = int(radius * 0.4)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=line)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    else:
        pen.rectangle((x - radius, y - line, x + radius, y + line), fill=colour)
        pen.rectangle((x - line, y - radius, x + line, y + radius), fill=colour)
