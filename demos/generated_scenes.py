"""A generated image-text dataset in which dense text matters: a short caption mentions little of its scene.

Each scene has three or four coloured shapes on a tinted, noisy background, and neighbours that differ from it in one.
A dense text lists all objects; a short caption, of which there are two a scene, mentions one or two, so that it fits
other scenes too. That is the imbalance D2S-VSE is about: what a picture holds and what a caption says of it.
"""

import io
import random
from dataclasses import dataclass
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
WORDS = "a and there is picture with ."

FEATURES = Features(
    {
        "image": Image(),
        "captions": List(Value("string")),
        "dense_text": Value("string"),
        "image_id": Value("string"),
    }
)


@dataclass(frozen=True)
class World:
    """What scenes hold.

    Args:
        shapes: of the objects.
        objects: how many a scene may have.
        family: scenes in a row that differ in one object, so that details matter.
    """

    shapes: tuple[str, ...] = SHAPES
    objects: tuple[int, ...] = (3, 4)
    family: int = 4


CROWDED = World()  # captions leave out most: where dense text helps most, and what `make demo-compare` measures
CLEAR = World(SHAPES[:4], (2, 3))  # what `make demo` learns in two minutes

QUERIES = (  # of the test scenes of `CLEAR`, at least 5 fit each
    "a red circle",
    "a red triangle",
    "a green square",
    "a blue ring",
    "a yellow circle",
    "a yellow triangle",
    "a purple square",
    "a black ring",
    "a red square and a red triangle",
    "a red triangle and a yellow triangle",
    "a green circle and a green triangle",
    "a green circle and a black ring",
    "a green square and a yellow circle",
    "a blue circle and a yellow circle",
    "a blue ring and a yellow ring",
    "a blue square and a blue triangle",
    "a blue square and a yellow square",
    "a blue square and a black circle",
    "a yellow ring and a purple circle",
    "a yellow triangle and a purple square",
)


def make_scene(rng: random.Random, world: World = CROWDED) -> list[tuple[str, str]]:
    """Draw a scene: (colour, shape) of its objects."""
    return [make_thing(rng, world) for _ in range(rng.choice(world.objects))]


def make_thing(rng: random.Random, world: World = CROWDED) -> tuple[str, str]:
    """Draw one object."""
    return rng.choice(tuple(COLOURS)), rng.choice(world.shapes)


def vary(scene, rng: random.Random, world: World = CROWDED) -> list[tuple[str, str]]:
    """Redraw one object of a scene: what a neighbouring frame of a video, or a near-duplicate photo, would show."""
    index = rng.randrange(len(scene))
    return [*scene[:index], make_thing(rng, world), *scene[index + 1 :]]


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


def scene_of(seed: int, index: int, world: World = CROWDED) -> tuple[list[tuple[str, str]], random.Random]:
    """Scene `index` of a split, and the generator that draws and describes it."""
    rng = random.Random(f"{seed}-{index}")
    scene = make_scene(random.Random(f"{seed}-family-{index // world.family}"), world)
    return vary(scene, rng, world) if index % world.family else scene, rng


def generate(count: int, seed: int, captions: int = 2, world: World = CROWDED) -> Dataset:
    """Make `count` scenes with `captions` short captions each; equal seeds give equal data."""
    rows = []
    for index in range(count):
        scene, rng = scene_of(seed, index, world)
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


def seed_of(split: str) -> int:
    """The seed of a split that `write_dataset` wrote with seed 0."""
    return {"train": 0, "validation": 1000, "test": 2000}[split]


def write_dataset(folder: str | Path, train: int, validation: int, test: int, seed: int = 0, world: World = CROWDED):
    """Write parquet splits that `datasets.load_dataset(folder)` reads."""
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        with whole_path(Path(folder) / f"{split}-00000-of-00001.parquet") as draft:
            generate(count, seed_of(split) + seed, world=world).to_parquet(draft)


def write_towers(folder: str | Path, seed: int = 0, widths: tuple[int, ...] = (32, 64, 128)) -> tuple[str, str]:
    """Write untrained towers that fit the scenes and return their paths.

    The vision tower is a ResNet with one block for each of `widths`, the text tower a BERT with its tokenizer.
    """
    import torch
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(seed)
    vision, text = Path(folder) / "vision", Path(folder) / "text"
    sizes = {"embedding_size": 32, "hidden_sizes": list(widths), "depths": [1] * len(widths)}
    ResNetModel(ResNetConfig(**sizes, layer_type="basic")).save_pretrained(vision)
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
