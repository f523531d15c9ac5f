"""Features of frozen uni-modal models, computed once and kept as columns of the data.

Each row carries a checksum of its picture and captions, so that a feature can never serve another item (the official
code matches rows by their position in two files). Work is kept in parts: a killed run goes on where it stopped.
"""

import json
from collections import abc
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset, Features, List, Sequence, Value, concatenate_datasets
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from ..data.arguments import DataArguments
from ..data.rows import prepare_rows
from ..files.bad_samples import BAD_SAMPLES
from ..files.digests import folder_digest, settings_digest
from ..files.outputs import output_folder
from ..files.whole import whole_path
from ..modeling.towers import load_errors, load_tower
from ..processing.batching import batches_of, by_length, decoding_threads, run_batches, tokenize
from ..processing.half_precision import computing_in, resolved_dtype
from ..processing.load_encoder import snapshot_of
from .inputs.teacher_columns import CHECKSUM, IMAGE, TEXT, VIEWS, checksum
from .inputs.views import PLAIN, Views
from .train_teachers import pool_image, pool_text, several_captions, train_image_teacher, train_text_teacher

PART = 256  # rows
PARTS = ".parts"  # in the folder of the results: a run was here
CAPTIONS = "captions"  # in the place of a vision backbone: an image is taught by what its captions say


@dataclass
class TeacherOptions:
    """What `write_teachers` makes; the fields are flags of `vsehub teachers`, where `image` is `--vision`."""

    out: str  # folder of the parquet files
    image: str | None = None  # folder or Hub id of a vision backbone, or CAPTIONS
    text: str | None = None  # folder or Hub id of a text backbone and its tokenizer
    splits: tuple[str, ...] = ("train",)  # get features
    copy: tuple[str, ...] = ("validation",)  # are copied as they are
    dense_text: str | None = None  # as for training; kept as the column `dense_text`
    batch_size: int = 32
    dtype: str = "float32"  # what the features are computed in: or `bfloat16`, or `auto`
    views: int = 1  # of each image
    image_augmentation: str = "crop"  # of the views
    train_teachers: float = 0  # epochs; 0 trains none
    train_batch_size: int = 64
    learning_rate: float = 2e-5
    temperature: float = 0.1
    seed: int = 0
    device: str | torch.device = "cpu"


class ImageTeacher:
    """A frozen vision backbone; the mean of its tokens is an image's feature."""

    def __init__(self, source: str, device: str | torch.device, dtype: str = "float32"):
        self.device, self.dtype = device, dtype
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
        with computing_in(self.dtype, self.model, self.device):
            return pool_image(self.model, inputs).half().cpu().numpy()


class TextTeacher:
    """A frozen text backbone; the mean of its real tokens is a caption's feature."""

    def __init__(self, source: str, device: str | torch.device, dtype: str = "float32"):
        self.device, self.dtype = device, dtype
        self.model = load_tower(source, "text_config").to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)

    def prepare(self, texts: list[str]) -> dict[str, torch.Tensor]:
        """Turn captions into inputs of `embed`."""
        return tokenize(self.tokenizer, texts, max_length=128)

    @torch.no_grad()
    def embed(self, inputs: dict[str, torch.Tensor]) -> np.ndarray:
        """Embed prepared captions: (N, G_T) in half precision."""
        with computing_in(self.dtype, self.model, self.device):
            return pool_text(self.model, inputs).half().cpu().numpy()


class CaptionTeacher:
    """What the captions of an image say, in the place of its picture: the mean of their unit vectors.

    Images are then alike where people said alike things of them. A backbone that never saw a caption orders pictures
    worse than the student does, and would teach it that.
    """

    def __init__(self, text: TextTeacher):
        self.text = text

    def features(self, rows: Dataset, views: Views, batch_size: int) -> list:
        """Features of every image (R, V, G_T); all views of an image have the same."""
        images = []
        for captions in _text_features(rows, self.text, batch_size):
            vectors = np.asarray(captions, np.float32)
            units = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            images.append([units.mean(0).tolist()] * views.count)
        return images


def add_teachers(
    rows: Dataset,
    image: ImageTeacher | CaptionTeacher | None,
    text: TextTeacher | None,
    parts: Path,
    batch_size: int = 32,
    views: Views = PLAIN,
) -> Dataset:
    """Add the columns of one or both teachers, part by part; complete parts in the folder are not computed again.

    The name of a part is a digest of the pictures, or the captions, that it was made of: if the captions change, the
    images' parts are used again.

    Args:
        rows: prepared rows.
        image, text: the teachers.
        parts: folder of the parts.
        batch_size: images, or texts, at a time.
        views: of each image.
    """
    parts.mkdir(parents=True, exist_ok=True)
    rows = rows.remove_columns([name for name in (IMAGE, TEXT, CHECKSUM, VIEWS) if name in rows.column_names])
    images, texts = [], []
    for start in tqdm(range(0, len(rows), PART), desc="teachers"):
        chosen = rows.select(range(start, min(start + PART, len(rows))))
        if isinstance(image, CaptionTeacher):
            made_of = [*chosen["captions"], str(views)]
            images.append(_part(parts, IMAGE, made_of, partial(image.features, chosen, views, batch_size)))
        elif image is not None:
            made_of = [*_seen(chosen, views), str(views)]
            images.append(_part(parts, IMAGE, made_of, partial(_image_features, chosen, image, views, batch_size)))
        if text is not None:
            made_of = list(chosen["captions"])
            texts.append(_part(parts, TEXT, made_of, partial(_text_features, chosen, text, batch_size)))
    sums = [checksum(picture, captions) for picture, captions in zip(rows["image"], rows["captions"])]
    columns = [concatenate_datasets(column) for column in (images, texts) if column]
    rows = concatenate_datasets([rows, *columns], axis=1).add_column(CHECKSUM, sums)
    return rows if image is None else rows.add_column(VIEWS, [json.dumps(asdict(views))] * len(rows))


def _seen(rows: Dataset, views: Views) -> list:
    """What an image teacher sees of the rows: their pictures, of scenes the bands, and of views what draws them."""
    seen: list = [checksum(picture, []) for picture in rows["image"]]
    if "bands" in rows.column_names:
        seen.append(list(rows["bands"]))
    if views.count > 1:  # those of another id are other ones
        seen.append(list(rows["image_id"]))
    return seen


def _part(folder: Path, column: str, made_of: list, compute: abc.Callable[[], list]) -> Dataset:
    """Read one column of a part, or compute and write it; an interrupted part does not exist."""
    path = folder / f"{column}-{settings_digest(made_of)}.parquet"
    if path.exists() and not _is_whole(path):
        path.unlink()
    if not path.exists():
        features = Features({column: List(Sequence(Value("float16")))})
        _write(Dataset.from_dict({column: compute()}, features), path)
    return Dataset.from_parquet(str(path))


def _write(rows: Dataset, path: Path):
    """Write parquet completely or not at all."""
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
    parts = run_batches(batches, prepare, teacher.embed, teacher.device, decoding_threads())
    return np.concatenate([part for _, part in parts]).reshape(len(rows), views.count, -1).tolist()


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
    """Read splits, train the teachers if requested, add their columns, and write parquet that can be trained on.

    Args:
        data: source and columns; `dense_text` is read for the splits that get features if `options.dense_text` is set.
        options: what is made and how.

    Returns:
        How many rows each split has.

    Raises:
        ValueError, OSError: wrong options, or an `out` that holds something else.
    """
    _check(data, options)
    options = replace(options, dtype=resolved_dtype(options.dtype, torch.device(options.device)))
    data.dense_text = options.dense_text or data.dense_text
    out, views = Path(options.out), Views(options.views, options.image_augmentation)
    splits = {
        split: prepare_rows(data, split, str(out), need_dense=bool(options.dense_text) and split in options.splits)
        for split in (*options.splits, *options.copy)
    }
    (out / PARTS).mkdir(parents=True, exist_ok=True)
    image_source, text_source = options.image, options.text
    key = settings_digest(_facts(options, splits[options.splits[0]]), 8)
    if options.train_teachers:
        image_source, text_source = trained(splits[options.splits[0]], out / ".teachers" / key, options)
    text = TextTeacher(text_source, options.device, options.dtype) if text_source else None
    image: ImageTeacher | CaptionTeacher | None = None
    if options.image == CAPTIONS:
        image = CaptionTeacher(text)
    elif image_source:
        image = ImageTeacher(image_source, options.device, options.dtype)
    for split, rows in splits.items():
        if split in options.splits:
            rows = splits[split] = add_teachers(rows, image, text, out / PARTS / key, options.batch_size, views)
        _write(rows, out / f"{split}-00000-of-00001.parquet")
    return {split: len(rows) for split, rows in splits.items()}


def _facts(options: TeacherOptions, rows: Dataset) -> list:
    """What the features depend on beside the rows that they are of: the teachers, and what trains them."""
    sources = [source for source in (options.image, options.text) if source and source != CAPTIONS]
    facts = [options.image, options.text, *map(_version, sources)]
    if options.dtype != "float32":  # whose digest is as it always was
        facts.append(options.dtype)
    if options.train_teachers:
        sums = [checksum(picture, captions) for picture, captions in zip(rows["image"], rows["captions"])]
        facts += [*_settings(options).values(), options.image_augmentation, settings_digest(sums)]
    return facts


def _version(source: str) -> str | None:
    """Which weights a teacher has: a digest of its folder, or the commit of its Hub repository, which may change."""
    if Path(source).is_dir():
        return folder_digest(source)
    with load_errors(source):
        AutoConfig.from_pretrained(source, trust_remote_code=False)  # now it is in the cache, as its weights will be
    folder = snapshot_of(source)
    return folder and Path(folder).name


def _check(data: DataArguments, options: TeacherOptions):
    """Refuse wrong options, and an `out` that holds something else, such as the data.

    Raises:
        ValueError, OSError: with the flag and the remedy.
    """
    if not (options.image or options.text):
        raise ValueError("no teacher is named: set --vision, --text or both")
    if options.image == CAPTIONS and not options.text:
        raise ValueError(f"--vision {CAPTIONS} needs --text: the text teacher reads the captions")
    slices = [split for split in (*options.splits, *options.copy) if "[" in split]
    if slices:  # the name of a split is that of its file, by which training finds it
        raise ValueError(
            f"--splits and --copy: {', '.join(slices)}: features are made of whole splits; name "
            f"{slices[0].partition('[')[0]}, and the parts when you train (--train_split, --eval_split)"
        )
    sizes = {name: getattr(options, name) for name in ("views", "batch_size", "train_batch_size")}
    wrong = [f"--{name} must be at least 1, not {value}" for name, value in sizes.items() if value < 1]
    if not 0 <= options.train_teachers < float("inf"):
        wrong.append(f"--train_teachers is a number of epochs, not {options.train_teachers}")
    if not options.temperature > 0:
        wrong.append(f"--temperature must be above 0, not {options.temperature}")
    if wrong:
        raise ValueError("; ".join(wrong))
    out = output_folder(options.out)
    if out.is_dir() and not (out / PARTS).is_dir() and any(BAD_SAMPLES not in path.name for path in out.iterdir()):
        raise FileExistsError(f"{out} holds other files: name a new folder with --out")
    if out.is_dir() and Path(data.data).is_dir() and out.samefile(data.data):
        raise ValueError(f"{out} is the data itself: name another folder with --out")


def trained(rows: Dataset, folder: Path, options: TeacherOptions) -> tuple[str | None, str | None]:
    """Fine-tune the image teacher on the rows' pictures, the text teacher on their captions; return their folders."""
    settings, image, text = _settings(options) | {"use_cpu": str(options.device) == "cpu"}, None, None
    vision = None if options.image == CAPTIONS else options.image
    if options.text:
        several_captions(rows)  # refused now, not after hours of the other teacher
    if vision:
        size = ImageTeacher(vision, "cpu").size
        image = train_image_teacher(vision, rows, folder / "image", size, options.image_augmentation, settings)
    if options.text:
        text = train_text_teacher(options.text, rows, folder / "text", settings)
    return image, text


def _settings(options: TeacherOptions) -> dict:
    """What `train_image_teacher` and `train_text_teacher` follow from."""
    return {
        "epochs": options.train_teachers,
        "batch_size": options.train_batch_size,
        "learning_rate": options.learning_rate,
        "temperature": options.temperature,
        "seed": options.seed,
    }
