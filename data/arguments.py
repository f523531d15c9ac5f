"""The data flags that training and the verbs share: source, splits, names of columns."""

from dataclasses import dataclass, field
from typing import Literal


def underscored(word: str) -> str:
    """A flag in the spelling of `TrainingArguments`: `--image-root=a-b` becomes `--image_root=a-b`."""
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def is_dense_file(dense_text: str) -> bool:
    """Whether `--dense_text` names a file, by its ending, and not a column of the data."""
    return dense_text.lower().endswith((".jsonl", ".parquet", ".csv", ".tsv"))


@dataclass
class DataArguments:
    """Where image-text pairs come from and how they are read."""

    data: str = field(
        default="",
        metadata={
            "help": "Hub id, table (parquet, CSV, JSON lines), imagefolder, json (Karpathy, COCO), official folder."
        },
    )
    image_root: str | None = field(
        default=None,
        metadata={"help": "Folder of the image files that a manifest names; `{split}` in it is the split."},
    )
    data_config: str | None = field(
        default=None, metadata={"help": "Which configuration, of a dataset that has several."}
    )
    train_split: str = field(default="train", metadata={"help": "Pairs that train."})
    eval_split: str = field(default="validation", metadata={"help": "Selection happens here; never the test split."})
    image_column: str = field(default="image", metadata={"help": "Column of the pictures."})
    bands: list[int] | None = field(
        default=None,
        metadata={"help": "Of multi-band TIFF: red, green, blue, counted from 1 (`--bands 4 3 2`; default the first)."},
    )
    captions_column: str = field(default="captions", metadata={"help": "Column of the captions: a text or a list."})
    id_column: str = field(default="image_id", metadata={"help": "Column of the pictures' ids."})
    label_column: str = field(
        default="label",
        metadata={"help": "Scene classes; `prefix` takes what stands before the first _ of a file name."},
    )
    dense_text: str = field(
        default="dense_text",
        metadata={
            "help": "A column, a table of image_id and dense_text (.parquet of `vsehub caption`, .csv, .jsonl), a "
            ".jsonl whose line k is for image k, or `union`: all captions of an image in one text, the default where "
            "the column `dense_text` is missing."
        },
    )
    dense_sampling: bool = field(
        default=False,
        metadata={
            "help": "Stage pretrain reads in each step some sentences of a dense text, in random order, not all of it."
        },
    )
    on_bad_sample: Literal["error", "quarantine"] = field(
        default="error",
        metadata={"help": "Stop at the first bad row, or leave bad rows out and list them in bad_samples.jsonl."},
    )
    max_text_length: int = field(
        default=256,
        metadata={"help": "Tokens of a text, dense or short, that are read; the saved processor cuts there, too."},
    )
    image_augmentation: Literal["none", "crop", "rand_augment"] = field(
        default="crop",
        metadata={
            "help": "While training: crop (60-100 %%) and flip, or PIR's crop (50-100 %%), flip and RandAugment(2, 7)."
        },
    )
    text_augmentation: float = field(
        default=0.2, metadata={"help": "Share of words that are masked, replaced or dropped while training."}
    )
    streaming: bool = field(
        default=False,
        metadata={"help": "Read parquet, webdataset tars or a Hub id as it comes, where the data do not fit the disk."},
    )
    pairs_per_epoch: int | None = field(
        default=None,
        metadata={"help": "Of --streaming: pairs between two evaluations by epoch; default the rows, where known."},
    )
    shuffle_buffer: int = field(
        default=1000, metadata={"help": "Of --streaming: rows in each worker's memory, which are mixed."}
    )
    max_train_images: int | None = field(default=None, metadata={"help": "Read the first so many pictures."})
    max_eval_images: int | None = field(
        default=None, metadata={"help": "Read the first so many of the evaluation split."}
    )
