"""`vsehub teachers`: features of frozen uni-modal models, computed once and kept as columns of the data.

Each row carries a checksum of its picture and captions, so that a feature can never serve another item (the official
code matches rows by their position in two files). Work is kept in parts: a killed run goes on where it stopped.
"""

import argparse
import json
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

from ..data.arguments import add_data_flags, data_arguments
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
        self.processor = AutoImageProcessor.from_pretrained(source, backend="pil")
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
        self.tokenizer = AutoTokenizer.from_pretrained(source)

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

    def prepare(batch: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        return teacher.prepare([views.open(rows[row], view, teacher.size) for row, view in batch])

    batches = batches_of([(row, view) for row in range(len(rows)) for view in range(views.count)], batch_size)
    features = [part for _, part in run_batches(batches, prepare, teacher.embed, teacher.device)]
    return np.concatenate(features).reshape(len(rows), views.count, -1).tolist()


def _text_features(rows: Dataset, teacher: TextTeacher, batch_size: int) -> list:
    """Features of each row's captions, for each row (its captions, G_T)."""
    texts = [text for captions in rows["captions"] for text in captions]

    def prepare(batch: list[int]) -> dict[str, torch.Tensor]:
        return teacher.prepare([texts[index] for index in batch])

    order = by_length(texts)
    parts = [part for _, part in run_batches(batches_of(order, batch_size), prepare, teacher.embed, teacher.device)]
    features = np.concatenate(parts)[np.argsort(order)]
    ends = np.cumsum([len(captions) for captions in rows["captions"]])[:-1]
    return [part.tolist() for part in np.split(features, ends)]


def main(argv: list[str] | None = None) -> int:
    """Read splits, train the teachers if asked to, add the columns, and write parquet that trains as the data did."""
    args = parser().parse_args(argv)
    _check(args)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = data_arguments(args)
    data.dense_text = args.dense_text or data.dense_text
    out, views = Path(args.out), Views(args.views, args.image_augmentation)
    splits = {
        split: prepare_rows(data, split, str(out), need_dense=bool(args.dense_text) and split in args.splits)
        for split in (*args.splits, *args.copy)
    }
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    sources = {"image": args.image, "text": args.text}
    facts = [args.image, args.text] + (list(_settings(args).values()) if args.train_teachers else [])
    key = settings_digest(facts, 8)
    if args.train_teachers:
        sources = trained(sources, splits[args.splits[0]], out / ".teachers" / key, args)
    teachers, parts = (
        (ImageTeacher(sources["image"], device), TextTeacher(sources["text"], device)),
        out / PARTS / key,
    )
    for split, rows in splits.items():
        if split in args.splits:
            rows = add_teachers(rows, *teachers, parts, args.batch_size, views)
        _write(rows, out / f"{split}-00000-of-00001.parquet")
        print(f"{split}: {len(rows)} rows in {out}")
    return 0


def _check(args):
    """What is wrong with the flags alone, and an `--out` that holds something else, such as the data.

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
    if out.is_dir() and Path(args.data).is_dir() and out.samefile(args.data):
        raise ValueError(f"{out} is the data itself: name another folder with --out")


def trained(sources: dict[str, str], rows: Dataset, folder: Path, args) -> dict[str, str]:
    """Fine-tune both teachers on the rows' pictures, and on their captions; returns their folders."""
    settings = _settings(args)
    several_captions(rows)  # before hours of the other teacher
    size = ImageTeacher(sources["image"], "cpu").size
    image = train_image_teacher(sources["image"], rows, folder / "image", size, args.image_augmentation, settings)
    return {"image": image, "text": train_text_teacher(sources["text"], rows, folder / "text", settings)}


def _settings(args) -> dict:
    return {
        "epochs": args.train_teachers,
        "batch_size": args.train_batch_size,
        "learning_rate": args.learning_rate,
        "temperature": args.temperature,
        "seed": args.seed,
    }


def parser() -> argparse.ArgumentParser:
    """The flags of `vsehub teachers`."""
    parser = argparse.ArgumentParser("vsehub teachers", description=__doc__.splitlines()[0])
    parser.add_argument("data", help="Hub id, parquet, imagefolder or json, as for training")
    parser.add_argument("--image", required=True, help="Hub id or folder of a vision backbone")
    parser.add_argument("--text", required=True, help="Hub id or folder of a text backbone and its tokenizer")
    parser.add_argument("--out", required=True, help="folder for the parquet files")
    parser.add_argument("--splits", nargs="+", default=["train"], help="which get features (default: %(default)s)")
    parser.add_argument("--copy", nargs="*", default=["validation"], help="which are copied as they are")
    add_data_flags(parser)
    parser.add_argument("--dense_text", help="as for training; kept as the column `dense_text`")
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--views", type=int, default=1, help="looks at each image; training then shows the same ones")
    parser.add_argument("--image_augmentation", choices=("crop", "rand_augment"), default="crop", help="of the looks")
    group = parser.add_argument_group("teachers that first learn from the data, each within its modality")
    group.add_argument(
        "--train_teachers", "--train-teachers", type=float, default=0, metavar="EPOCHS", help="NT-Xent; 0: none"
    )
    group.add_argument("--train_batch_size", type=int, default=64)
    group.add_argument("--learning_rate", type=float, default=2e-5)
    group.add_argument("--temperature", type=float, default=0.1)
    group.add_argument("--seed", type=int, default=0)
    return parser
