"""The files of an index: data files that never change, and one manifest that names the current ones.

A change writes new files beside the old ones, syncs them to disk, and then renames a new manifest over the old one.
Killed before that rename, the folder is the old index; killed after it, the new one. Files that no manifest names
are removed by the next change.
"""

import contextlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..files.whole import BusyError, WriterLock, new_file, sync_folder, write_json

FORMAT = 1
COMPACT_FORMAT = 2  # vectors that are not float32, which earlier versions cannot read
MANIFEST = "manifest.json"
NUMBER = "[0-9]" * 6
FILE = re.compile(r"(vectors|deleted)-\d{6,}\.npy|items-\d{6,}\.parquet|graph-\d{6,}\.faiss")
OURS = (  # only these are removed: the folder may hold other files
    f"vectors-{NUMBER}.npy",
    f"items-{NUMBER}.parquet",
    f"deleted-{NUMBER}.npy",
    f"graph-{NUMBER}.faiss",
    f"{MANIFEST}.tmp",  # left by a killed earlier version
)


class IndexFolderError(ValueError):
    """An index that cannot be opened, or not changed as asked; the message names the folder and the remedy."""


class Store:
    """The files of one index.

    Args:
        folder: of the index; the first commit makes it.

    Raises:
        IndexFolderError: its name is empty; or not Unicode, and Arrow opens no such file.
    """

    def __init__(self, folder):
        if not os.fspath(folder):  # as a path, it would be the working folder
            raise IndexFolderError("the name of the index is empty: name a folder")
        self.folder = Path(folder).absolute()  # a program may change its working folder
        try:
            str(self.folder).encode()
        except UnicodeEncodeError:
            raise IndexFolderError(
                f"{self.folder}: the name of an index and of the folders above it must be Unicode: rename the folder, "
                "or name another place"
            ) from None
        self._lock = None
        self._place: tuple[int, int] | None = None  # device and inode of the folder, as long as it is locked

    def exists(self) -> bool:
        """Whether the folder holds an index."""
        return (self.folder / MANIFEST).is_file()

    def load(self, opener):
        """Return (manifest, opener(manifest)), all of one generation, even while another process changes the index.

        Raises:
            IndexFolderError: no index, one of a newer format, or a file that is missing or damaged.
        """
        for _ in range(20):  # a writer may remove the files of the generation that we are about to open
            manifest = self.manifest()
            try:
                _check_names(manifest)
                for name, size in manifest["files"].items():
                    actual = (self.folder / name).stat().st_size
                    if actual != size:
                        raise IndexFolderError(
                            f"{self.folder / name} has {actual:,} bytes, not {size:,}: copy the index again, or "
                            "build it again"
                        )
                return manifest, opener(manifest)
            except FileNotFoundError as error:
                lost = error.filename
                if self.manifest()["generation"] == manifest["generation"]:
                    break
            except (IndexFolderError, ImportError, MemoryError):
                raise
            except Exception as error:  # numpy, Arrow, faiss and our own checks raise many types
                raise IndexFolderError(
                    f"{self.folder} is damaged ({type(error).__name__}: {error}): copy the index again, or build "
                    "it again"
                ) from None
        raise IndexFolderError(f"{lost} is missing: copy the index again, or build it again") from None

    def manifest(self) -> dict:
        """Read the manifest."""
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            generation = manifest["generation"], manifest["files"]
        except (FileNotFoundError, NotADirectoryError):
            raise IndexFolderError(f"{self.folder} holds no index: make one with `vsehub index`") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise IndexFolderError(
                f"{path} is no manifest of an index: copy the index again, or build it again"
            ) from None
        if manifest.get("format") not in (FORMAT, COMPACT_FORMAT) or not generation:
            raise IndexFolderError(
                f"{self.folder} is an index of format {manifest.get('format')}, this vsehub reads up to "
                f"{COMPACT_FORMAT}: update vsehub"
            )
        return manifest

    def writing(self, name: str):
        """Context that gives the path of a new file to write to; on leaving, the file is synced to disk."""
        self._check_place()
        return new_file(self.folder / name)

    def commit(self, manifest: dict):
        """Switch to a manifest whose files are all written, then remove what it no longer names."""
        self._check_place()
        manifest["files"] = {name: (self.folder / name).stat().st_size for name in manifest["files"]}
        sync_folder(self.folder)  # the new files must be on disk before a manifest names them
        write_json(self.folder / MANIFEST, manifest, indent=1)
        self._remove_but(manifest["files"])

    def remove_others(self):
        """Remove what a change that failed has left, as far as that is possible."""
        if self._place == _place_of(self.folder):
            with contextlib.suppress(OSError, ValueError):  # a manifest that cannot be read: nothing is removed
                self._remove_but(self.manifest()["files"] if self.exists() else ())

    def _remove_but(self, names: Collection[str]):
        """Remove our files but these; the next change removes those that cannot be removed now."""
        for pattern in OURS:
            for path in self.folder.glob(pattern):
                if path.name not in names:
                    with contextlib.suppress(OSError):  # Windows removes no file that is mapped, and the change is made
                        path.unlink()

    @contextlib.contextmanager
    def lock(self, wait: float = 0.0):
        """Keep other writers out; may be entered again by the process that holds it.

        Args:
            wait: seconds to wait for another writer; a warning says for whom.

        Raises:
            IndexFolderError: another process is writing, or still is after that time.
        """
        self._lock = self._lock or WriterLock(self.folder / ".lock", str(self.folder))
        try:
            with self._lock.hold(wait):
                before, self._place = self._place, self._place or _place_of(self.folder)
                try:
                    yield
                finally:
                    self._place = before
        except BusyError as error:
            raise IndexFolderError(str(error)) from None

    def _check_place(self):
        """Refuse to write where another folder, or a link to one, has taken the place of the locked one."""
        if self._place is not None and self._place != _place_of(self.folder):
            raise IndexFolderError(f"{self.folder} was replaced while it was written: look what is there now")


def _place_of(folder: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(folder)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _check_names(manifest: dict):
    """Refuse a manifest that names files of other kinds than ours, or in other folders.

    Raises:
        TypeError, ValueError: which `load` turns into one line.
    """
    used = [name for pair in manifest.get("segments", ()) for name in pair]
    used += [manifest.get("deleted"), manifest.get("graph")]
    for name in {*manifest["files"], *filter(None, used)}:
        if not FILE.fullmatch(name) or name not in manifest["files"]:
            raise ValueError(f"it names {name!r}, which is no file of an index")


__all__ = ["IndexFolderError", "Store"]
