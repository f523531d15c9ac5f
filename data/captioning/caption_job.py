"""Dense captions for every image of a folder or dataset, in a Parquet table.

A job of days is killed sooner or later. Captions therefore go, one fsynced line a batch, to a journal beside the table;
the same command run again reads them back and asks for the rest only. When none is missing, the table is written under
a temporary name and renamed, and the journal removed. Every row says which model, revision and prompt made it.
"""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from tqdm.auto import tqdm
from transformers.utils import logging

from ...files.digests import picture_digest
from ...files.text import printable
from ...processing.pixels import BadImageError
from ...processing.scenes import open_any
from ..columns import in_order, spans, with_column
from ..folders import list_folder
from ..grouping import first_rows
from ..picture_checks import image_source
from ..sources import is_folder_of_pictures, other_splits, path_of, paths_below, read_source, split_folder
from .journal import Journal, locked, read_table, write_table
from .request import Caption, CaptionError

logger = logging.get_logger(__name__)
FAILURES_IN_A_ROW = 20  # after so many failures in a row the model is assumed to be broken
REMEDY = "Mend or remove it, or pass --on_bad_sample quarantine to leave it out"


class FolderImages:
    """The images below a folder, see `data.folders`; an image's id is its relative path.

    Args:
        root: the folder.
        part: the subfolder that is read, if not all of it.

    Attributes:
        others: how many files are no images, by suffix.
    """

    def __init__(self, root, part=None):
        self.twins: dict[str, str] = {}  # each file is there once
        self.root, self.identity = Path(root), {}  # ids are relative paths: the folder may be moved and get more files
        folder = list_folder(part or root)
        self.refused = {self._id(path): why for path, why in folder.refused.items()}
        self.paths = {self._id(path): Path(path) for path in (*folder.pictures, *folder.refused)}
        self.ids, self.others = sorted(self.paths), folder.told

    def _id(self, path: str) -> str:
        return Path(path).relative_to(self.root).as_posix().encode("utf-8", "backslashreplace").decode()

    def open(self, image_id):
        """Decode one image; BadImageError if it cannot be, or if a symbolic link leads out of the folder."""
        path = self.paths[image_id]
        if image_id in self.refused:
            raise BadImageError(f"{image_id}: {self.refused[image_id]}")
        if not path.resolve().is_relative_to(self.root.resolve()):
            raise BadImageError(f"{image_id}: a symbolic link that leaves {self.root}; copy what it points to")
        return open_any(path, name=image_id)

    def source(self, image_id):
        """The path of an image."""
        return self.paths[image_id]


class TableImages:
    """The rows of a dataset; an image's id is `id_column`, else its path below `folder`, else the row's index.

    Rows of one id and one picture (a caption a row) are one image.
    """

    def __init__(self, rows, name, image_column="image", id_column="image_id", folder=None):
        from datasets import Image

        if image_column not in rows.column_names:
            raise CaptionError(f"{name} has no column {image_column!r}, but {rows.column_names}: pass --image_column")
        if isinstance(rows.features[image_column], Image):
            rows = rows.cast_column(image_column, Image(decode=False))
        if id_column not in rows.column_names and id_column != "image_id":  # as training has it
            raise CaptionError(f"{name} has no column {id_column!r}, but {rows.column_names}: pass --id_column")
        rows = in_order(rows)
        paths = None if folder is None or id_column in rows.column_names else paths_below(rows, image_column, folder)
        self.rows, self.column, self.identity = rows.select_columns([image_column]), image_column, {}
        self.twins: dict[str, str] = {}  # id of a row -> id of the first row that names the same file
        if paths is not None:
            self.ids = [path for part in paths for path in part.to_pylist()]
        elif id_column in rows.column_names:
            values = list(rows[id_column])
            if None in values:
                raise CaptionError(f"{name}, row {values.index(None)}: no {id_column}; give every image one")
            self.ids = [str(image_id) for image_id in values]
        else:  # indices identify images only within their dataset
            self.ids = [str(index) for index in range(len(rows))]
            self.identity = {"images": name, "rows": len(rows)}
            self._find_twins()
        self.index = {image_id: index for index, image_id in reversed(list(enumerate(self.ids)))}
        if len(self.index) < len(self.ids):
            self._join(name, id_column)

    def _find_twins(self):
        """Find the rows whose file an earlier one names: with a caption a row, each picture is there several times."""
        first: dict[str, str] = {}
        for start, stop in spans(self.rows):
            for row, image in enumerate(self.rows[start:stop][self.column], start):
                source = image_source(image)
                if isinstance(source, str) and first.setdefault(source, str(row)) != str(row):
                    self.twins[str(row)] = first[source]

    def _join(self, name, id_column):
        """Make the rows of each id one image; CaptionError where they show several."""
        pictures = self.rows if self.column == "image" else self.rows.rename_column(self.column, "image")
        pictures = with_column(pictures, "image_id", pa.string(), [pa.array(self.ids, pa.string())])
        firsts = first_rows(pictures, image_source)
        for row, image_id in enumerate(self.ids):
            first = self.index[image_id]
            if firsts[row] != firsts[first]:
                rows = f"{image_id!r} names two rows with different images ({first} and {row})"
                raise CaptionError(f"{name}: {id_column} {rows}; one caption is made for each image")
        self.ids = list(dict.fromkeys(self.ids))
        self.index = {image_id: int(firsts[self.index[image_id]]) for image_id in self.ids}

    def open(self, image_id):
        """Decode one image; BadImageError if it cannot be."""
        source = self.source(image_id)
        if source is None:
            raise BadImageError(f"{image_id}: no image in this row")
        return open_any(source, name=image_id)

    def source(self, image_id):
        """The bytes or the path of an image; None where its row has none."""
        return image_source(self.rows[self.index[image_id]][self.column])


def find_images(images, out, split=None, image_root=None, image_column="image", id_column="image_id", data_config=None):
    """Open a folder of images, anything that `sources.read_source` reads, or a `datasets.Dataset`.

    What a folder is, and what its images are called, is decided as for training.
    """
    if hasattr(images, "column_names"):
        return TableImages(images, "the dataset", image_column, id_column)
    source, name = path_of(str(images), split or "train"), str(images)
    if source.is_dir() and image_root is None and is_folder_of_pictures(source, except_for=Path(out).resolve()):
        if data_config is not None or id_column != "image_id":
            flag = f"--id_column {id_column}" if data_config is None else f"--data_config {data_config}"
            raise CaptionError(f"{flag}: {name} is a folder of pictures, which has none; leave it out")
        try:
            part = None if split is None or "{split}" in name else split_folder(source, split)
        except ValueError as error:
            raise CaptionError(str(error)) from None
        return _told(FolderImages(source, part), name)
    if source.is_dir() and Path(out).resolve().is_relative_to(source.resolve()):
        raise CaptionError(f"{out} lies inside the dataset {images} and would become part of it: write elsewhere")
    try:
        rows = read_source(name, split or "train", image_root, image_column, data_config=data_config)
    except Exception as error:  # `datasets` raises what its readers raise
        raise CaptionError(f"{images}: neither images nor a dataset ({type(error).__name__}: {error})") from None
    left = other_splits(source) if split is None and source.is_dir() else []
    if left:
        logger.warning("%s: the split train is captioned; for the others, --split %s", printable(name), ", ".join(left))
    place = os.path.abspath(images) if os.path.exists(images) else name
    part = split or "train" if data_config is None else f"{data_config}, {split or 'train'}"
    return TableImages(rows, f"{place} [{part}]", image_column, id_column, source)


def _told(folder: FolderImages, name: str) -> FolderImages:
    if folder.others:
        logger.warning("left out: %s: no pictures (%s)", printable(name), printable(folder.others))
    return folder


class Job:
    """One run: asks for missing captions, writes them to the journal, and writes the table when all are there."""

    def __init__(self, images, out, captioner, on_bad_sample, header, progress):
        self.images, self.out, self.captioner, self.header, self.progress = images, out, captioner, header, progress
        self.quarantine, self.journal = on_bad_sample == "quarantine", Journal(f"{out}.journal.jsonl", header)
        self.captions: dict[str, Caption] = {}
        self.problems: dict[str, str] = {}

    def run(self) -> dict:
        """Continue where the last run stopped; return what `caption_images` does."""
        for captions, problems in (read_table(self.out, self.header), self.journal.read()):
            self.captions |= captions
            self.problems |= problems if self.quarantine else {}  # with "error", failed images are tried again
        ids = set(self.images.ids)
        if strange := sorted(set(self.captions) - ids):
            gone = f"{len(strange)} images that are not there any more, first {strange[0]!r}"
            raise CaptionError(f"{self.out} has captions of {gone}: give another --out, or pass --restart")
        self._forget_replaced()
        before = len(self.captions)
        known = self.captions.keys() | self.problems.keys() | self.images.twins.keys()
        pending = [image_id for image_id in self.images.ids if image_id not in known]
        complete = not pending and os.path.exists(self.out) and not self.journal.path.exists()
        if pending:
            try:
                self._caption(pending)
            finally:
                self.journal.close()
        self._copy_to_twins()
        self.problems = {i: why for i, why in self.problems.items() if i in ids and i not in self.captions}
        captions = [self.captions[image_id] for image_id in self.images.ids if image_id in self.captions]
        if not complete:
            write_table(self.out, captions, self.problems, self.header)
            self.journal.path.unlink(missing_ok=True)
        return {
            "captions": len(captions),
            "truncated": sum(caption.truncated for caption in captions),
            "bad": len(self.problems),
            "made": len(captions) - before,
            "was_complete": complete,
            "revisions": sorted({caption.revision for caption in captions}),
        }

    def _copy_to_twins(self):
        """Give the other rows of a picture what its first row was given."""
        for image_id, first in self.images.twins.items():
            if image_id in self.captions:
                continue
            if first in self.captions:
                self.captions[image_id] = replace(self.captions[first], image_id=image_id)
            elif first in self.problems:
                self.problems[image_id] = self.problems[first]

    def _forget_replaced(self):
        """Drop the captions of pictures that were replaced; CaptionError if all were."""
        known = [caption for caption in self.captions.values() if caption.picture is not None]
        replaced = [each.image_id for each in known if each.picture != self._digest(each.image_id)]
        if replaced and len(replaced) == len(self.captions) > 1:
            raise CaptionError(
                f"{self.out} has captions of other pictures of the same ids, the first is {replaced[0]!r}: give "
                "another --out, or pass --restart"
            )
        if replaced:
            text = "%d pictures were replaced since they were captioned, and are captioned again: the first is %s"
            logger.warning(text, len(replaced), printable(replaced[0]))
        for image_id in replaced:
            del self.captions[image_id]

    def _digest(self, image_id):
        """A digest of a picture; None where it cannot be read. A pipe would wait for ever."""
        source = self.images.source(image_id)
        try:
            return picture_digest(source) if isinstance(source, bytes) or os.path.isfile(source) else None
        except (OSError, TypeError, ValueError):
            return None

    def _caption(self, pending):
        total = len(self.images.ids)
        with tqdm(total=total, initial=total - len(pending), unit="image", disable=not self.progress) as bar:
            failures: dict[str, str] = {}
            digests: dict[str, str | None] = {}
            for outcomes in self.captioner.captions(self._decoded(pending, digests, bar)):
                captions = [
                    replace(outcome, picture=digests.pop(outcome.image_id, None))
                    for outcome in outcomes
                    if isinstance(outcome, Caption)
                ]
                failures.update((o.image_id, o.reason) for o in outcomes if not isinstance(o, Caption))
                if captions:  # the model works, so the failed images are at fault
                    self._remember(captions, failures if self.quarantine else {}, bar)
                if failures and not self.quarantine:
                    raise CaptionError(f"{next(iter(failures.values()))}. {REMEDY}")
                if captions:
                    failures = {}
                elif len(failures) >= FAILURES_IN_A_ROW:
                    self._give_up(failures)
            if failures and not self.captions:
                self._give_up(failures)
            if failures:
                self._remember([], failures, bar)

    def _decoded(self, pending, digests, bar):
        for image_id in pending:
            try:
                image = self.images.open(image_id)
            except BadImageError as error:
                if not self.quarantine:
                    raise CaptionError(f"{error}. {REMEDY}") from None
                self._remember([], {image_id: str(error)}, bar)
            else:
                digests[image_id] = self._digest(image_id)
                yield image_id, image

    def _remember(self, captions, problems, bar):
        self.journal.append(captions, problems)
        self.captions.update((caption.image_id, caption) for caption in captions)
        self.problems.update(problems)
        bar.update(len(captions) + len(problems))

    def _give_up(self, failures):
        last = f"the last: {list(failures.values())[-1]}"
        count = f"{len(failures)} images in a row" if len(failures) > 1 else "the only image"
        raise CaptionError(f"{count} got no caption: the model is probably misconfigured; {last}")


def caption_images(
    images,
    out,
    captioner,
    on_bad_sample: str = "error",
    restart: bool = False,
    split: str | None = None,
    image_root: str | None = None,
    image_column: str = "image",
    id_column: str = "image_id",
    progress: bool = True,
    data_config: str | None = None,
) -> dict:
    """Write one dense caption for each image to a Parquet table; a second call continues a killed one.

    Args:
        images: a folder of images, a `datasets.Dataset`, or anything that `sources.read_source` reads.
        out: the table: image_id, dense_text, model_id, revision, prompt_hash, truncated, num_tokens, and a
            digest of the picture, by which one that was replaced is known.
        captioner: a `TransformersCaptioner` or `ServerCaptioner`, which holds prompt and sampling.
        on_bad_sample: "error" stops at the first unusable image; "quarantine" lists it in `bad_samples.jsonl`.
        restart: throw away what `out` and its journal hold.
        split: which part of the source; None takes all images of a folder of pictures, `train` of a dataset.
        image_root, image_column, id_column, data_config: how a dataset is read.
        progress: whether to show a bar.

    Returns:
        Counts of captions, truncated and bad in the table and made by this call; was_complete; and revisions.

    Raises:
        CaptionError: a bad image under "error", a model that does not answer, a job begun differently, a held lock.
    """
    if on_bad_sample not in ("error", "quarantine"):
        raise CaptionError(f"on_bad_sample is {on_bad_sample!r}; it may be 'error' or 'quarantine'")
    if os.path.isdir(out):
        raise CaptionError(f"{out} is a folder: name a file in it")
    source = find_images(images, out, split, image_root, image_column, id_column, data_config)
    if not source.ids:
        raise CaptionError(f"{images} holds no image")
    asked = {"prompt_hash": captioner.request.prompt_hash, "seed": captioner.request.seed}
    if captioner.request.max_image_side is not None:  # unset in the tables of older versions
        asked["max_image_side"] = captioner.request.max_image_side
    header = {"backend": captioner.backend, **captioner.identity(), **asked, **source.identity}
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with locked(out):
        job = Job(source, out, captioner, on_bad_sample, header, progress)
        if restart:
            read_table(out, None)  # refuses to delete a file that is no table of captions
            Path(out).unlink(missing_ok=True)
            job.journal.path.unlink(missing_ok=True)
        return job.run()


__all__ = ["FolderImages", "TableImages", "caption_images"]
