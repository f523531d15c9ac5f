"""Features of frozen uni-modal models, computed once and kept as columns of the data.

Each row carries a checksum of its picture and captions, so that a feature can never serve another item (the official
code matches rows by their position in two files). Work is kept in parts: a killed run goes on where it stopped.
"""

import json
from collections import abc
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, List, Sequence, Value, concatenate_datasets
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoTokenizer

from ..data.arguments import DataArguments
from ..data.rows import image_source, prepare_rows
from ..files.bad_samples import BAD_SAMPLES
from ..files.digests import row_digest, settings_digest
from ..files.outputs import output_folder
from ..files.whole import whole_path
from ..modeling.towers import load_tower
from ..processing.batching import batches_of, by_length, run_batches, tokenize
from .train_teachers import pool_image, pool_text, several_captions, train_image_teacher, train_text_teacher
from .views import PLAIN, Views

IMAGE, TEXT, CHECKSUM, VIEWS = "teacher_image_embeds", "teacher_text_embeds", "teacher_checksum", "teacher_views"
PART = 256  # rows
PARTS = ".parts"  # in the folder of the results: a run was here


@dataclass
class TeacherOptions:
    """What `write_teachers` makes; the fields are flags of `vsehub teachers`."""

    image: str  # folder or Hub id of a vision backbone
    text: str  # folder or Hub id of a text backbone and its tokenizer
    out: str  # folder of the parquet files
    splits: tuple[str, ...] = ("train",)  # get features
    copy: tuple[str, ...] = ("validation",)  # are copied as they are
    dense_text: str | None = None  # as for training; kept as the column `dense_text`
    batch_size: int = 32
    views: int = 1  # of each image
    image_augmentation: str = "crop"  # of the views
    train_teachers: float = 0  # epochs; 0 trains none
    train_batch_size: int = 64
    learning_rate: float = 2e-5
    temperature: float = 0.1
    seed: int = 0
    device: str | torch.device = "cpu"


@dataclass
class Teachers:
    """Features of R rows in half precision.

    Args:
        image: (R, V, G_I), one for each of the `views`.
        text: for each row (its captions, G_T).
        views: of each image that the teacher saw.
    """

    image: torch.Tensor
    text: list[torch.Tensor]
    views: Views = PLAIN


def read_teachers(rows: Dataset) -> Teachers | None:
    """Read the columns of `vsehub teachers`, or None where there are none.

    Raises:
        ValueError: a row whose picture or captions are not those that its features were made of.
    """
    if IMAGE not in rows.column_names:
        return None
    for number, (image, captions, kept) in enumerate(zip(rows["image"], rows["captions"], rows[CHECKSUM])):
        if checksum(image, captions) != kept:
            raise ValueError(
                f"row {number} (image_id {rows[number]['image_id']}): its teachers' features were made of another "
                "picture or other captions; run `vsehub teachers` again"
            )
    image = torch.from_numpy(np.asarray(rows[IMAGE], np.float16))
    text = [torch.from_numpy(np.asarray(found, np.float16)) for found in rows[TEXT]]
    return Teachers(image, text, Views(**json.loads(rows[0][VIEWS])))


def checksum(image, captions: list[str]) -> str:
    """Digest of what a row's features belong to."""
    return row_digest(image_source(image), captions)


class ImageTeacher:
    """A frozen vision backbone; the mean of its tokens is an image's feature."""

    def __init__(self, source: str, device: str | torch.device):
        self.device = device
        self.model = load_tower(source, "vision_config").to(device).eval()
        self.processor = AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
        sides = self.processor.crop_size or self.processor.size
        self.size = sides.get("height") or sides["shortest_edge"]

    def prepare(self, images: list) -> dict[str, torch.Tensor]:
        """Turn pictures into inputs of `embed`."""
        return {"pixel_values": self.processor(images, return_tensors="pt")["pixel_values"]}

    @torch.no_grad()
    def embed(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """Embed prepared pictures: (N, G_I) in half precision."""
        return pool_image(self.model, inputs).half().cpu().numpy()


class TextTeacher:
    """A frozen text backbone; the mean of its real tokens is a caption's feature."""

    def __init__(self, source: str, device: str | torch.device):
        self.device = device
        self.model = load_tower(source, "text_config").to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)

    def prepare(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Turn captions into inputs of `embed`."""
        return tokenize(self.tokenizer, texts, max_length=128)

    @torch.no_grad()
    def embed(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """Embed prepared captions: (N, G_T) in half precision."""
        return pool_text(self.model, inputs).half().cpu().numpy()


def add_teachers(
    rows: Dataset, image: ImageTeacher, text: TextTeacher, parts: Path, batch_size: int = 32, views: Views = PLAIN
) -> Dataset:
    """Add the four columns, part by part; what lies whole in the folder `parts` is not computed again.

    A part is named by the pictures, or the captions, that it was made of: other captions leave the images' parts alone.
    """
    parts.mkdir(parents=True, exist_ok=True)
    rows = rows.remove_columns([name for name in (IMAGE, TEXT, CHECKSUM, VIEWS) if name in rows.column_names])
    images, texts = [], []
    for start in tqdm(range(0, len(rows), PART), desc="teachers"):
        chosen = rows.select(range(start, min(start + PART, len(rows))))
        pictures = [checksum(picture, []) for picture in chosen["image"]]
        images.append(
            _part(parts, IMAGE, [*pictures, str(views)], partial(_image_features, chosen, image, views, batch_size))
        )
        texts.append(_part(parts, TEXT, list(chosen["captions"]), partial(_text_features, chosen, text, batch_size)))
    sums = [checksum(picture, captions) for picture, captions in zip(rows["image"], rows["captions"])]
    rows = concatenate_datasets([rows, concatenate_datasets(images), concatenate_datasets(texts)], axis=1)
    return rows.add_column(CHECKSUM, sums).add_column(VIEWS, [json.dumps(asdict(views))] * len(rows))


def _part(folder: Path, column: str, made_of: list, compute) -> Dataset:
    """Read one column of a part, or compute and write it; an interrupted part does not exist."""
    path = folder / f"{column}-{settings_digest(made_of)}.parquet"
    if path.exists() and not _is_whole(path):
        path.unlink()
    if not path.exists():
        features = Features({column: List(Sequence(Value("float16")))})
        _write(Dataset.from_dict({column: compute()}, features), path)
    return Dataset.from_parquet(str(path))


def _write(rows: Dataset, path: Path):
    """Write parquet whole or not at all."""
    with whole_path(path) as draft:
        rows.to_parquet(str(draft))


def _is_whole(path: Path) -> bool:
    try:
        return pq.read_metadata(path).num_rows > 0
    except (pa.ArrowInvalid, OSError):
        return False


def _image_features(rows: Dataset, teacher: ImageTeacher, views: Views, batch_size: int) -> list:
    """Features of every view of every picture, (R, V, G_I)."""

    def prepare(batch: abc.Sequence[tuple[int, int]]) -> dict[str, torch.Tensor]:
        return teacher.prepare([views.open(rows[row], view, teacher.size) for row, view in batch])

    batches = batches_of([(row, view) for row in range(len(rows)) for view in range(views.count)], batch_size)
    features = [part for _, part in run_batches(batches, prepare, teacher.embed, teacher.device)]
    return np.concatenate(features).reshape(len(rows), views.count, -1).tolist()


def _text_features(rows: Dataset, teacher: TextTeacher, batch_size: int) -> list:
    """Features of each row's captions, for each row (its captions, G_T)."""
    texts = [text for captions in rows["captions"] for text in captions]

    def prepare(batch: abc.Sequence[int]) -> dict[str, torch.Tensor]:
        return teacher.prepare([texts[index] for index in batch])

    order = by_length(texts)
    parts = [part for _, part in run_batches(batches_of(order, batch_size), prepare, teacher.embed, teacher.device)]
    features = np.concatenate(parts)[np.argsort(order)]
    ends = np.cumsum([len(captions) for captions in rows["captions"]])[:-1]
    return [part.tolist() for part in np.split(features, ends)]


def write_teachers(data: DataArguments, options: TeacherOptions) -> dict[str, int]:
    """Read splits, train the teachers if asked to, add the columns, and write parquet that trains as the data did.

    Args:
        data: source and columns; `dense_text` is read for the splits that get features if `options.dense_text` is set.
        options: what is made and how.

    Returns:
        How many rows each split has.

    Raises:
        ValueError, OSError: options that make no sense, or an `out` that holds something else.
    """
    _check(data, options)
    data.dense_text = options.dense_text or data.dense_text
    out, views = Path(options.out), Views(options.views, options.image_augmentation)
    splits = {
        split: prepare_rows(data, split, str(out), need_dense=bool(options.dense_text) and split in options.splits)
        for split in (*options.splits, *options.copy)
    }
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    sources = {"image": options.image, "text": options.text}
    facts = [options.image, options.text] + (list(_settings(options).values()) if options.train_teachers else [])
    key = settings_digest(facts, 8)
    if options.train_teachers:
        sources = trained(sources, splits[options.splits[0]], out / ".teachers" / key, options)
    teachers = ImageTeacher(sources["image"], options.device), TextTeacher(sources["text"], options.device)
    for split, rows in splits.items():
        if split in options.splits:
            rows = splits[split] = add_teachers(rows, *teachers, out / PARTS / key, options.batch_size, views)
        _write(rows, out / f"{split}-00000-of-00001.parquet")
    return {split: len(rows) for split, rows in splits.items()}


def _check(data: DataArguments, args: TeacherOptions):
    """What is wrong with the options alone, and an `out` that holds something else, such as the data.

    Raises:
        ValueError, OSError: says which.
    """
    sizes = {"views": args.views, "batch_size": args.batch_size, "train_batch_size": args.train_batch_size}
    wrong = [f"--{name} must be at least 1, not {value}" for name, value in sizes.items() if value < 1]
    if not 0 <= args.train_teachers < float("inf"):
        wrong.append(f"--train_teachers is a number of epochs, not {args.train_teachers}")
    if not args.temperature > 0:
        wrong.append(f"--temperature must be above 0, not {args.temperature}")
    if wrong:
        raise ValueError("; ".join(wrong))
    out = output_folder(args.out)
    if out.is_dir() and not (out / PARTS).is_dir() and any(BAD_SAMPLES not in path.name for path in out.iterdir()):
        raise FileExistsError(f"{out} holds other files: name a new folder with --out")
    if out.is_dir() and Path(data.data).is_dir() and out.samefile(data.data):
        raise ValueError(f"{out} is the data itself: name another folder with --out")


def trained(sources: dict[str, str], rows: Dataset, folder: Path, args: TeacherOptions) -> dict[str, str]:
    """Fine-tune both teachers on the rows' pictures, and on their captions; returns their folders."""
    settings = _settings(args)
    several_captions(rows)  # before hours of the other teacher
    size = ImageTeacher(sources["image"], "cpu").size
    image = train_image_teacher(sources["image"], rows, folder / "image", size, args.image_augmentation, settings)
    return {"image": image, "text": train_text_teacher(sources["text"], rows, folder / "text", settings)}


def _settings(args: TeacherOptions) -> dict:
    return {
        "epochs": args.train_teachers,
        "batch_size": args.train_batch_size,
        "learning_rate": args.learning_rate,
        "temperature": args.temperature,
        "seed": args.seed,
    }
