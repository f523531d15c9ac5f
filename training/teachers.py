"""`vsehub teachers`: features of frozen uni-modal models, computed once and kept as columns of the data.

Each row carries a checksum of its picture and captions, so that a feature can never serve another item (the official
code matches rows by their position in two files). Work is kept in parts: a killed run goes on where it stopped.
"""

import argparse
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, List, Sequence, Value, concatenate_datasets
from tqdm.auto import tqdm
from transformers import AutoImageProcessor, AutoTokenizer

from ..modeling.towers import image_tokens, load_tower
from .arguments import DataArguments
from .data import image_source, prepare_rows, row_image

IMAGE, TEXT, CHECKSUM = "teacher_image_embeds", "teacher_text_embeds", "teacher_checksum"
PART = 256  # rows


@dataclass
class Teachers:
    """Features of R rows: images (R, G_I), and for each row its captions' (captions, G_T); half precision."""

    image: torch.Tensor
    text: list[torch.Tensor]


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
    return Teachers(image, [torch.from_numpy(np.asarray(found, np.float16)) for found in rows[TEXT]])


def checksum(image, captions: list[str]) -> str:
    """Digest of what a row's features belong to."""
    source = image_source(image)
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    return hashlib.sha256(data + "\0".join(captions).encode()).hexdigest()[:16]


class ImageTeacher:
    """A frozen vision backbone; the mean of its tokens is an image's feature."""

    def __init__(self, source: str, device):
        self.model = load_tower(source, "vision_config").to(device).eval()
        self.processor = AutoImageProcessor.from_pretrained(source, backend="pil")

    @torch.no_grad()
    def __call__(self, images: list) -> np.ndarray:
        """Embed pictures: (N, G_I) in half precision."""
        pixels = self.processor(images, return_tensors="pt")["pixel_values"].to(self.model.device)
        return image_tokens(self.model, pixels).mean(1).half().cpu().numpy()


class TextTeacher:
    """A frozen text backbone; the mean of its real tokens is a caption's feature."""

    def __init__(self, source: str, device):
        self.model = load_tower(source, "text_config").to(device).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(source)

    @torch.no_grad()
    def __call__(self, texts: list[str]) -> np.ndarray:
        """Embed captions: (N, G_T) in half precision."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
        tokens = {name: tokens[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        mask = tokens["attention_mask"][..., None]
        hidden = self.model(**tokens).last_hidden_state
        return ((hidden * mask).sum(1) / mask.sum(1)).half().cpu().numpy()


def add_teachers(rows: Dataset, image: ImageTeacher, text: TextTeacher, parts: Path, batch_size: int = 32) -> Dataset:
    """Add the three columns, part by part; a part that lies in the folder `parts` whole is not computed again."""
    parts.mkdir(parents=True, exist_ok=True)
    found = []
    for start in tqdm(range(0, len(rows), PART), desc="teachers"):
        chosen = rows.select(range(start, min(start + PART, len(rows))))
        sums = [checksum(picture, captions) for picture, captions in zip(chosen["image"], chosen["captions"])]
        path = parts / f"{start}-{hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]}.parquet"
        if not path.exists():
            images = [row_image(row) for row in chosen]
            batches = [image(images[i : i + batch_size]) for i in range(0, len(images), batch_size)]
            captions = [caption for several in chosen["captions"] for caption in several]
            texts = np.concatenate([text(captions[i : i + batch_size]) for i in range(0, len(captions), batch_size)])
            ends = np.cumsum([len(several) for several in chosen["captions"]])
            features = Features(
                {IMAGE: Sequence(Value("float16")), TEXT: List(Sequence(Value("float16"))), CHECKSUM: Value("string")}
            )
            columns = {IMAGE: list(np.concatenate(batches)), TEXT: np.split(texts, ends[:-1]), CHECKSUM: sums}
            draft = path.with_suffix(".draft")
            Dataset.from_dict(
                {name: list(map(_plain, column)) for name, column in columns.items()}, features
            ).to_parquet(draft)
            draft.rename(path)
        found.append(Dataset.from_parquet(str(path)))
    return concatenate_datasets([rows, concatenate_datasets(found)], axis=1)


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def main(argv: list[str] | None = None) -> int:
    """Read splits, add the columns, and write parquet that trains as the data did."""
    parser = argparse.ArgumentParser("vsehub teachers", description=__doc__.splitlines()[0])
    parser.add_argument("data", help="Hub id, parquet, imagefolder or json, as for training")
    parser.add_argument("--image", required=True, help="Hub id or folder of a vision backbone")
    parser.add_argument("--text", required=True, help="Hub id or folder of a text backbone and its tokenizer")
    parser.add_argument("--out", required=True, help="folder for the parquet files")
    parser.add_argument("--splits", nargs="+", default=["train"], help="which get features (default: %(default)s)")
    parser.add_argument("--copy", nargs="*", default=["validation"], help="which are copied as they are")
    parser.add_argument("--image_root")
    parser.add_argument("--captions_column", default="captions")
    parser.add_argument("--dense_text", help="as for training; kept as the column `dense_text`")
    parser.add_argument("--batch_size", type=int, default=32)
    args = parser.parse_args(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = DataArguments(data=args.data, image_root=args.image_root, captions_column=args.captions_column)
    data.dense_text = args.dense_text or data.dense_text
    teachers, out = (ImageTeacher(args.image, device), TextTeacher(args.text, device)), Path(args.out)
    key = hashlib.sha256(f"{args.image} {args.text}".encode()).hexdigest()[:8]
    for split in (*args.splits, *args.copy):
        rows = prepare_rows(data, split, str(out), need_dense=bool(args.dense_text) and split in args.splits)
        if split in args.splits:
            rows = add_teachers(rows, *teachers, out / ".parts" / f"{split}-{key}", args.batch_size)
        rows.to_parquet(str(out / f"{split}-00000-of-00001.parquet"))
        print(f"{split}: {len(rows)} rows in {out}")
    return 0
