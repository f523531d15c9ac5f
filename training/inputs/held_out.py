"""Pictures that a model is evaluated on are not among those that train it, where one table or split holds both."""

import hashlib
import sys

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ...data.arguments import DataArguments
from ...data.columns import in_order, spans, with_column
from ...data.rows import SOURCE_ROW, image_source
from ...data.sources import is_one_table

MOST = 200_000  # rows that are compared by the bytes of their pictures; of more, reading these would take minutes


def parts_of_one_split(data: DataArguments) -> bool:
    """Whether both splits are slices of one, which may part the rows of a picture.

    A user who names one split twice wants that, as in a trial of whether a model can learn its data by heart.

    Raises:
        ValueError: one of the splits is the whole table, and the other one another split, which the table has not.
    """
    train, evaluation = data.train_split, data.eval_split
    if train == evaluation:
        return False
    if "[" in train and "[" in evaluation:
        one_table = is_one_table(data.data, train, evaluation)
        return one_table or train.partition("[")[0] == evaluation.partition("[")[0]
    if not is_one_table(data.data, train, evaluation):
        return False
    name, _, ending = data.data.rpartition(".")
    raise ValueError(
        f"{data.data} is one table without splits, so the model would be selected on pictures that train it. Name two "
        f"tables ({name}_{{split}}.{ending}), or two parts: --train_split 'train[:95%]' --eval_split 'train[95%:]'"
    )


def without_pictures_of(train: Dataset, evaluation: Dataset, told: bool = True) -> Dataset:
    """Leave the pictures of the evaluation out of the rows that train; they keep their numbers.

    Args:
        train, evaluation: prepared rows.
        told: whether it is said how many these are.

    Raises:
        ValueError: no row is left.
    """
    if len(train) > MOST and isinstance(image_source(train[0]["image"]), bytes):
        return train
    evaluated = set(_keys(evaluation))
    kept = np.array([row for row, key in enumerate(_keys(train)) if key not in evaluated], dtype=np.int64)
    shared = len(train) - len(kept)
    if not shared:
        return train
    if not len(kept):
        raise ValueError("each picture that trains is evaluated on, too: name another --train_split or --eval_split")
    if told:
        print(f"{shared} picture(s) of both splits are evaluated on, and left out of training", file=sys.stderr)
    if SOURCE_ROW not in train.column_names:
        train = in_order(train)
        train = with_column(train, SOURCE_ROW, pa.int64(), (pa.array(np.arange(*span)) for span in spans(train)))
    return train.select(kept)


def _keys(rows: Dataset):
    """What tells pictures apart: the name of the file, or a digest of the bytes."""
    for part in rows.select_columns(["image"]).iter(1000):
        for source in map(image_source, part["image"]):
            yield hashlib.sha256(source).digest() if isinstance(source, bytes) else source


__all__ = ["parts_of_one_split", "without_pictures_of"]
