"""Generated overhead scenes for PIR: small objects decide the class, the background is common to all classes.

Each scene has a ground, patches of other grounds, a road or two, stray houses, trees and coloured boxes, and somewhere
the objects of its class. Captions name some of what is really there: how many objects, their colour, the ground.
Several scenes fit many captions, as in RSICD.
"""

import io
import random
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image, List, Value

from ..files.whole import whole_path

SIZE, SCALE = 64, 3  # pixels of a scene; it is drawn so many times larger
GROUNDS = {"green": (88, 128, 72), "brown": (134, 108, 76), "grey": (128, 128, 124), "sandy": (196, 178, 134)}
COLOURS = {"white": (240, 240, 240), "red": (196, 48, 44), "blue": (52, 84, 190), "yellow": (226, 196, 60)}
CHANGED, COVERED = 12, 0.2  # a pixel shows an object if it differs by so much; a cell, if this share of its pixels do
NUMBERS = {1: "a", 2: "two", 3: "three"}
CLASSES = ("airport", "river", "farmland", "port", "forest", "housing", "stadium", "parking")
PLACES = {"housing": "housing estate", "parking": "parking lot"}
THINGS = {"airport": "plane", "port": "boat", "housing": "house", "parking": "car"}
FEATURES = Features(
    {
        "image": Image(),
        "captions": List(Value("string")),
        "label": ClassLabel(names=list(CLASSES)),
        "image_id": Value("string"),
    }
)


def make_scene(rng: random.Random, label: str) -> dict:
    """Draw what a scene is: class, ground, colour, number and the box (left, top, side) of its objects, in pixels."""
    side = rng.uniform(0.42, 0.55) * SIZE
    return {
        "label": label,
        "ground": rng.choice(tuple(GROUNDS)),
        "colour": rng.choice(tuple(COLOURS)),
        "number": rng.choice((1, 2, 3)),
        "box": (rng.uniform(1, SIZE - side - 1), rng.uniform(1, SIZE - side - 1), side),
    }


def captions(scene: dict, rng: random.Random, count: int = 3) -> list[str]:
    """Describe a scene, each time naming some of its facts."""
    texts = []
    for _ in range(count):
        place = rng.choice(("", f" on {scene['ground']} land", f" with {scene['ground']} land around"))
        texts.append(f"{_subject(scene, rng)}{place}")
    return texts


def _subject(scene: dict, rng: random.Random) -> str:
    label, colour = scene["label"], scene["colour"]
    if label in THINGS:
        number = NUMBERS[scene["number"]]
        hue = f"{colour} " if rng.random() < 0.75 else ""
        things = f"{number} {hue}{THINGS[label]}{'' if number == 'a' else 's'}"
        return f"{things} at the {PLACES.get(label, label)}" if rng.random() < 0.7 else things
    if label == "stadium":
        return rng.choice(("a stadium", f"a stadium with {colour} stands"))
    if label == "farmland":
        return rng.choice(("farmland", f"farmland with {colour} strips"))
    if label == "river":
        return f"a river with a {colour} bridge" if rng.random() < 0.75 else "a river"
    return "a forest"


def draw(scene: dict, rng: random.Random):
    """Render a scene: SIZE x SIZE pixels, RGB."""
    import numpy as np
    from PIL import Image as Pillow

    pixels = _shrunk(_canvas(scene, rng, objects=True))
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 7, pixels.shape)
    return Pillow.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def _canvas(scene: dict, rng: random.Random, objects: bool):
    """The scene `SCALE` times larger, with the objects of its class or without them."""
    from PIL import Image as Pillow
    from PIL import ImageDraw

    image = Pillow.new("RGB", (SIZE * SCALE, SIZE * SCALE), _shade(GROUNDS[scene["ground"]], rng))
    pen = ImageDraw.Draw(image)
    _background(pen, rng)
    if objects:
        left, top, side = (value * SCALE for value in scene["box"])
        _objects(pen, scene, left, top, side, rng)
    return image


def _shrunk(image):
    import numpy as np
    from PIL import Image as Pillow

    return np.asarray(image.resize((SIZE, SIZE), Pillow.Resampling.BOX), np.float32)


def _shade(colour, rng, spread=14):
    return tuple(max(0, min(255, channel + rng.randint(-spread, spread))) for channel in colour)


def _background(pen, rng):
    """Patches, roads, stray houses and trees, and boxes in the colours of the objects: the same in every class.

    Because of the boxes, a picture as a whole does not tell the colour of its objects: only their own cells do.
    """
    full = SIZE * SCALE
    for _ in range(rng.randint(3, 6)):
        x, y, r = rng.uniform(0, full), rng.uniform(0, full), rng.uniform(0.1, 0.25) * full
        shape = rng.choice((pen.ellipse, pen.rectangle))
        shape((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=_shade(rng.choice(tuple(GROUNDS.values())), rng))
    for _ in range(rng.randint(1, 2)):
        ends = [(rng.uniform(0, full), 0), (rng.uniform(0, full), full)]
        ends = [(y, x) for x, y in ends] if rng.random() < 0.5 else ends
        pen.line(ends, fill=(104, 104, 104), width=2 * SCALE)
    for _ in range(rng.randint(3, 6)):
        x, y = rng.uniform(0, full), rng.uniform(0, full)
        if rng.random() < 0.5:
            _tree(pen, x, y)
        else:
            pen.rectangle((x, y, x + 4 * SCALE, y + 3 * SCALE), fill=_shade((150, 120, 110), rng))
    for _ in range(rng.randint(6, 10)):
        x, y = rng.uniform(0, full), rng.uniform(0, full)
        pen.rectangle((x, y, x + 5 * SCALE, y + 4 * SCALE), fill=rng.choice(tuple(COLOURS.values())))


def _tree(pen, x, y):
    pen.ellipse((x - 2 * SCALE, y - 2 * SCALE, x + 2 * SCALE, y + 2 * SCALE), fill=(36, 76, 38))


def _objects(pen, scene, left, top, side, rng):
    """Draw what makes the class into the square at (left, top)."""
    label, colour = scene["label"], COLOURS[scene["colour"]]
    right, bottom, middle = left + side, top + side, top + side / 2
    rows = [left + side * (i + 0.5) / scene["number"] for i in range(scene["number"])]
    if label == "airport":
        pen.rectangle((left, top, right, bottom), fill=(172, 172, 182))
        pen.rectangle((left, bottom - side * 0.3, right, bottom), fill=(84, 84, 88))
        for i in range(5):
            x = left + side * (i + 0.3) / 5
            pen.rectangle((x, bottom - side * 0.17, x + side * 0.08, bottom - side * 0.13), fill=(230, 230, 230))
        for x in rows:
            _plane(pen, x, top + side * 0.35, side * 0.15, colour)
    elif label == "port":
        pen.rectangle((left, top + side * 0.2, right, bottom), fill=(40, 120, 124))
        pen.rectangle((left, top + side * 0.1, right, top + side * 0.2), fill=(176, 172, 164))
        for x in rows:
            pen.ellipse((x - side * 0.12, top + side * 0.3, x + side * 0.12, bottom - side * 0.08), fill=colour)
    elif label == "river":
        points = [(SIZE * SCALE * i / 12, middle + side * 0.25 * rng.uniform(-1, 1)) for i in range(13)]
        pen.line(points, fill=(52, 92, 140), width=int(side * 0.28), joint="curve")
        x = left + side / 2
        pen.rectangle((x - side * 0.08, middle - side * 0.35, x + side * 0.08, middle + side * 0.35), fill=colour)
    elif label == "farmland":
        for i in range(7):
            fill = colour if i % 2 else (112, 150, 76)
            pen.rectangle((left + side * i / 7, top, left + side * (i + 0.9) / 7, bottom), fill=_shade(fill, rng))
    elif label == "forest":
        for _ in range(70):
            _tree(pen, rng.uniform(left, right), rng.uniform(top, bottom))
    elif label == "housing":
        pen.rectangle((left, top, right, bottom), fill=(150, 186, 116))
        pen.rectangle((left, middle - side * 0.06, right, middle + side * 0.06), fill=(104, 104, 104))
        for x in rows:
            pen.rectangle((x - side * 0.12, top, x + side * 0.12, middle - side * 0.14), fill=colour)
            pen.line((x, top, x, middle - side * 0.14), fill=(90, 60, 50), width=SCALE)
    elif label == "stadium":
        pen.ellipse((left, top + side * 0.1, right, bottom - side * 0.1), fill=colour)
        pen.ellipse(
            (left + side * 0.2, top + side * 0.28, right - side * 0.2, bottom - side * 0.28), fill=(70, 150, 66)
        )
    else:  # parking
        pen.rectangle((left, top, right, bottom), fill=(62, 62, 70))
        for i in range(8):
            x = left + side * (i + 0.5) / 8
            for y in (top, bottom - side * 0.2):
                pen.line((x, y, x, y + side * 0.2), fill=(226, 226, 226), width=SCALE)
        for x in rows:
            pen.rectangle((x - side * 0.07, middle - side * 0.2, x + side * 0.07, middle + side * 0.2), fill=colour)


def _plane(pen, x, y, r, colour):
    pen.rectangle((x - r * 0.2, y - r, x + r * 0.2, y + r), fill=colour)
    pen.rectangle((x - r, y - r * 0.3, x + r, y + r * 0.1), fill=colour)
    pen.rectangle((x - r * 0.5, y + r * 0.7, x + r * 0.5, y + r), fill=colour)


def scene_of(seed: int, index: int) -> tuple[dict, random.Random]:
    """Scene `index` of a split, and the generator that draws and describes it."""
    rng = random.Random(f"overhead-{seed}-{index}")
    return make_scene(rng, CLASSES[index % len(CLASSES)]), rng


def object_pixels(seed: int, index: int):
    """Which pixels of a scene the objects of its class changed: booleans (SIZE, SIZE)."""
    with_objects, without = (_shrunk(_canvas(*_drawn(seed, index), objects=there)) for there in (True, False))
    return abs(with_objects - without).max(-1) > CHANGED


def _drawn(seed: int, index: int) -> tuple[dict, random.Random]:
    """A scene and its generator in the state in which `generate` draws it."""
    scene, rng = scene_of(seed, index)
    captions(scene, rng)
    return scene, rng


def object_mask(seed: int, index: int, grid: int):
    """Cells that show what makes the class, as booleans (grid, grid): at least `COVERED` of their pixels do."""
    cell = SIZE // grid
    return object_pixels(seed, index).reshape(grid, cell, grid, cell).mean((1, 3)) >= COVERED


def generate(count: int, seed: int) -> Dataset:
    """Make `count` scenes with three captions each; equal seeds give equal data."""
    rows = []
    for index in range(count):
        scene, rng = scene_of(seed, index)
        texts, buffer = captions(scene, rng), io.BytesIO()
        draw(scene, rng).save(buffer, "PNG")
        rows.append(
            {
                "image": {"bytes": buffer.getvalue(), "path": None},
                "captions": texts,
                "label": CLASSES.index(scene["label"]),
                "image_id": f"overhead-{seed}-{index}",
            }
        )
    return Dataset.from_list(rows, features=FEATURES)


def true_of(caption: str, scene: dict) -> bool:
    """Whether every fact that a caption names is one of the scene: class, number, colour, ground."""
    said = caption.split()
    for fact, names in (("ground", GROUNDS), ("colour", COLOURS)):
        if any(word in names and word != scene[fact] for word in said):
            return False
    for label in CLASSES:
        thing = THINGS.get(label, label)
        if scene["label"] != label and {thing, f"{thing}s", label} & set(said):
            return False
    counted = scene["label"] in THINGS  # of the other classes there is one, whatever `number` says
    return not counted or said[0] == NUMBERS[scene["number"]]


def words() -> list[str]:
    """Every word of the captions."""
    said = (
        "a two three the at on with land around stands strips bridge river forest stadium farmland estate lot".split()
    )
    things = [form for thing in THINGS.values() for form in (thing, f"{thing}s")]
    return list(dict.fromkeys([*said, *GROUNDS, *COLOURS, *CLASSES, *things]))


def seed_of(split: str) -> int:
    """The seed of a split that `write_dataset` wrote with seed 0."""
    return {"train": 0, "validation": 1000, "test": 2000}[split]


def write_dataset(folder: str | Path, train: int, validation: int, test: int, seed: int = 0):
    """Write parquet splits that `datasets.load_dataset(folder)` reads."""
    for split, count in (("train", train), ("validation", validation), ("test", test)):
        with whole_path(Path(folder) / f"{split}-00000-of-00001.parquet") as draft:
            generate(count, seed_of(split) + seed).to_parquet(draft)


def write_towers(folder: str | Path, seed: int = 0) -> dict[str, str]:
    """Write untrained towers that fit the scenes, with their processors: paths by flag (vision, text, instruction)."""
    import torch
    from transformers import ResNetConfig, ResNetModel

    from ..processing.processing_dual_encoder import square_image_processor
    from .generated_scenes import write_text_tower

    torch.manual_seed(seed)
    paths = {name: str(Path(folder) / name) for name in ("vision", "text", "instruction")}
    for name in ("vision", "instruction"):  # 64 pixels become 8 x 8 tokens, each of which sees 27 pixels across
        config = ResNetConfig(embedding_size=32, hidden_sizes=[128, 192], depths=[1, 1], layer_type="bottleneck")
        ResNetModel(config).save_pretrained(paths[name])
        square_image_processor(SIZE).save_pretrained(paths[name])
    write_text_tower(paths["text"], words())
    return paths
