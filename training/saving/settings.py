"""Which run a stage's folder belongs to, and its settings: with others, a run would publish what it did not train.

The folder of a stage has a record: the run that writes there now, the run of the stage before, and the settings. Each
checkpoint has a copy. A checkpoint of another run does not count, and stays until its place is needed. Folders of
earlier versions have no record; a run goes on there as it did.
"""

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset

from ...data.arguments import DataArguments, is_dense_file
from ...data.columns import PART, is_list, lengths_of
from ...files.digests import file_digest
from ...files.whole import write_json
from ..flags.own_arguments import RetrievalArguments

RECORD = "settings.json"
BANDS = "bands.json"  # in the folder of caches: of which bands they are
EARLIER = ""  # the run of folders and checkpoints that have no record
ROWS = "the number of training rows"
OPEN = ("num_train_epochs", "max_steps", "load_best_model_at_end")  # may be changed as long as a stage is not finished
PATHS = ("data", "image_root", "dense_text", "vision", "text", "instruction", "stage1_model")
MOST_TOLD = 8  # differences that an error names
# Not settings of what is learned: places, memory, reports, and what a stopped run is told to change.
NO_DATA = {"on_bad_sample"}
NO_TRAINING = set(
    """output_dir per_device_eval_batch_size chunk_size check_images card_images dataloader_pin_memory
    remove_unused_columns save_total_limit eval_strategy save_strategy logging_steps""".split()
)
OF_TRAINER = """lr_scheduler_type lr_scheduler_kwargs warmup_steps warmup_ratio optim optim_args adam_beta1 adam_beta2
adam_epsilon max_steps gradient_accumulation_steps seed data_seed label_smoothing_factor
train_sampling_strategy""".split()


@dataclass
class Record:
    """What a stage's folder says.

    Args:
        run: its name, drawn when the stage was started anew.
        after: that of the stage before; empty if there was none.
        settings: by the name of their flag.
    """

    run: str
    after: str
    settings: dict[str, Any]


def settings_of(
    model: Any,
    data: DataArguments,
    objective: Any,
    training: Any,
    rows: int | None,
    digests: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The settings that the weights of a stage follow from, as JSON has them.

    Args:
        model, data, objective, training: the arguments of the stage.
        rows: of training, where they are counted.
        digests: of texts, see `digests_of`.
    """
    found = {item.name: getattr(each, item.name) for each in (model, objective) for item in fields(each)}
    found |= {item.name: getattr(data, item.name) for item in fields(data) if item.name not in NO_DATA}
    own = [item.name for item in fields(RetrievalArguments) if item.name not in NO_TRAINING]
    found |= {name: getattr(training, name) for name in (*own, *OF_TRAINER) if hasattr(training, name)}
    files = [name for name in PATHS if name != "dense_text" or is_dense_file(data.dense_text)]
    found |= {name: _place(found[name], data.train_split) for name in files if name in found}
    if rows is not None:
        found[ROWS] = rows
    found |= digests or {}
    return json.loads(json.dumps({name: None if value == {} else value for name, value in found.items()}, default=str))


def digests_of(rows: Dataset, column: str, what: str) -> dict[str, str]:
    """A digest of the ids of rows and of their texts, by its name: edited texts are other data.

    Args:
        rows: prepared.
        column: of the texts.
        what: they are called in the name.
    """
    digest = hashlib.sha256()
    for part in rows.select_columns(["image_id", column]).with_format("arrow").iter(PART):
        for name in ("image_id", column):
            _add_texts(digest, part[name].combine_chunks())
    return {f"the digest of {what}": digest.hexdigest()[:16]}


def digest_of_stage1(folder: str | None) -> dict[str, str]:
    """A digest of the weights in the folder of `--stage1_model`, by its name: trained anew, they teach otherwise.

    Args:
        folder: what the flag says; a Hub id has none.
    """
    paths = sorted(Path(folder).glob("*.safetensors")) if folder and os.path.isdir(folder) else []
    found = "".join(map(file_digest, paths))
    return {"the digest of --stage1_model": hashlib.sha256(found.encode()).hexdigest()[:16]} if found else {}


def _add_texts(digest, values: pa.Array):
    """Texts, or lists of them, as Arrow keeps them: as Python texts, a million rows take seconds and memory."""
    if is_list(values.type):
        digest.update(lengths_of(values).tobytes())
        values = values.flatten()
    texts = values.cast(pa.large_string())
    digest.update(np.asarray(pc.fill_null(pc.binary_length(texts), -1)).tobytes())
    texts = texts.drop_null()
    _, offsets, data = texts.buffers()
    borders = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    if data is not None and len(borders):
        digest.update(memoryview(data)[borders[0] : borders[-1]])


def read_record(folder: Path) -> Record | None:
    """The record of a stage or of a checkpoint; None if it has none.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / RECORD
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
        if not isinstance(record.run, str) or not isinstance(record.after, str):
            raise ValueError("runs have names")
        if not isinstance(record.settings, dict):
            raise ValueError("settings have names")
        return record
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not the settings of a stage ({error}); remove it, and they are not compared"
        ) from None


def write_record(folder: Path, record: Record):
    """Write the record of a stage, whole or not at all."""
    write_json(folder / RECORD, asdict(record))


def run_of(checkpoint: Path) -> str | None:
    """The run that wrote a checkpoint; None where its record is damaged."""
    try:
        record = read_record(checkpoint)
    except ValueError:
        return None
    return EARLIER if record is None else record.run


def refuse_other_settings(folder: Path, before: Record | None, now: dict[str, Any], finished: bool):
    """Refuse to go on with other settings, or to publish under them what was trained without.

    Args:
        folder: of the stage or of the checkpoint, for the error.
        before: its record; nothing is compared without one, and settings that only one of both versions has are not.
        now: settings of this run.
        finished: whether the stage is; its length is then one more setting.

    Raises:
        ValueError: names the flags and the remedy.
    """
    then = {} if before is None else before.settings
    names = [name for name in now if name in then and (finished or name not in OPEN)]
    wrong = [name for name in names if then[name] != now[name] and not _moved(name, then[name], now)]
    if not wrong:
        return
    told = [f"{name if ' ' in name else f'--{name}'} was {_said(then[name])}, and is {_said(now[name])}"
            for name in wrong[:MOST_TOLD]]  # fmt: skip
    more = [f"and {len(wrong) - MOST_TOLD} more"] if len(wrong) > MOST_TOLD else []
    raise ValueError(
        f"--resume_from_checkpoint: {folder} was {'finished' if finished else 'begun'} with other settings "
        f"({'; '.join([*told, *more])}): set them as they were, name another --output_dir, or leave "
        "--resume_from_checkpoint out and start anew"
    )


def forget_caches_of_other_bands(folder: Path, bands: list[int] | None):
    """Remove cached states of pictures that were read with other bands; the name of a cache does not tell them apart.

    Caches of earlier versions do not say their bands: they are kept by a run that names none.

    Args:
        folder: of the caches.
        bands: of this run.
    """
    path = folder / BANDS
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        before = None
    except ValueError:
        before = []
    if before != bands:
        write_json(path, [])  # a run that is killed here leaves caches that nobody takes
        for cache in [*folder.glob("vision-*"), *folder.glob("scene-*")]:
            if cache.is_dir():
                shutil.rmtree(cache)
    write_json(path, bands, indent=None)


def _place(value: Any, split: str) -> Any:
    """A path that is there, as it is called from anywhere; Hub ids and names of columns as they are."""
    if isinstance(value, str) and value and os.path.exists(os.path.expanduser(value.replace("{split}", split))):
        return os.path.realpath(os.path.expanduser(value))
    return value


def _moved(name: str, before: Any, now: dict[str, Any]) -> bool:
    """Whether a path leads to what has its name still, and is no longer where it was."""
    if name not in PATHS or not isinstance(before, str) or not isinstance(now[name], str):
        return False
    there = os.path.exists(before.replace("{split}", str(now.get("train_split"))))
    return os.path.isabs(before) and not there and Path(before).name == Path(now[name]).name


def _said(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


__all__ = [
    "EARLIER",
    "RECORD",
    "Record",
    "digest_of_stage1",
    "digests_of",
    "forget_caches_of_other_bands",
    "read_record",
    "refuse_other_settings",
    "run_of",
    "settings_of",
    "write_record",
]
