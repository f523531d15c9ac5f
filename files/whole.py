"""Write a file or a folder so that it is whole or absent, wherever the process is killed and whoever else writes.

What is written is a draft first: it lies in a hidden folder of a random name beside its target, which its writer keeps
locked. Once complete, the draft is flushed to the disk and renamed over the target. If anything fails, the draft is
removed and the target stays as it was. A draft that nobody locks was left by a killed writer; the next writer of the
same target removes it. Links are never followed: a link that has the target's name is replaced.
"""

import contextlib
import ctypes
import errno
import json
import logging
import os
import re
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from .outputs import STREAMS, output_file, output_folder

DRAFT = ".draft"  # how the name of the hidden folder ends
LOCK, OLD, MOVED = ".lock", ".old", ".moved"  # in it: the lock, the folder that is replaced, one that was
NO_SUCH_CALL = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EBADF)  # file systems that cannot flush a folder
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL)  # nor lock a file
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
ALMOST_NOTHING = 1 << 16  # bytes: the disk is full
NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has none, and links are rare there
AT_FDCWD, RENAME_EXCHANGE = -100, 2


class BusyError(OSError):
    """Another process is writing the same thing."""


@contextlib.contextmanager
def whole_file(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file for writing that takes its name only when it is complete; its folder is made.

    Args:
        path: of the file; what is there is replaced.
        mode: `wb`, or `w` for UTF-8.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    with whole_path(path) as draft, open(draft, mode, **text) as file:
        yield file


@contextlib.contextmanager
def whole_path(path: str | Path) -> Iterator[Path]:
    """The same for writers that take a name: gives the name of the draft, an empty file."""
    path = output_file(path)
    if str(path.parent) in STREAMS:
        yield path
        return
    with _draft(path) as folder:
        with new_file(folder / path.name) as draft:
            yield draft
        _replace(draft, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty folder to fill, which takes its name, with all that is in it, only when it is complete.

    A folder that is there is replaced as a whole: nothing of it stays. Where the system can exchange two folders
    (Linux), one of both has the name at any moment. Elsewhere a kill between two renames may leave the name free and
    both folders beside it: `recover`, which the next writer calls by itself, puts the new one in its place.
    A folder that cannot be renamed (a mount point, the working directory, one in a folder where nothing may be made)
    is filled file by file, `config.json` last, and keeps what else is in it.

    Raises:
        NotADirectoryError: a file has this name.
        OSError: it cannot be written; what was there is there.
    """
    path = output_folder(os.path.abspath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    stays = _cannot_be_renamed(path)
    with _draft(path / path.name if stays else path) as folder:
        draft = folder / path.name
        draft.mkdir()
        yield draft
        _sync_tree(draft)
        if stays:
            _move_into(draft, path, folder / MOVED)
            sync_folder(path)
        else:
            _swap(draft, path, folder / OLD)
            sync_folder(path.parent)


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[Path]:
    """Make an empty file that nothing refers to yet, for a writer that takes a name; on leaving it is on the disk.

    Whatever has this name is removed before, a link too. The file has the permissions that the umask gives, whatever
    its writer does. If the writer fails, the file is removed.

    Raises:
        OSError: the disk is full; the error has the name of the file, also where the writer's own has none.
    """
    path = Path(path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | NO_FOLLOW, 0o666)
    mode = stat.S_IMODE(os.fstat(handle).st_mode)
    os.close(handle)
    try:
        yield path
        _sync_file(path, mode)
    except BaseException as error:
        named = _named(error, path, path) if isinstance(error, Exception) else error  # before there is room again
        with contextlib.suppress(OSError):
            os.unlink(path)
        if named is error:
            raise
        raise named from error


def open_no_link(path: str | Path, mode: str) -> IO[Any]:
    """`open` for a file that is added to or changed in its place; a link that has its name is an error."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags | NO_FOLLOW, 0o666))


def write_text(path: str | Path, text: str):
    """Write a text in UTF-8, whole or not at all."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_draft(path: str | Path, text: str):
    """Write a text into a folder that is not whole yet, without waiting for the disk; a link is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    with open(path, "xb") as file:
        file.write(text.encode())


def write_json(path: str | Path, content, indent: int | None = 2):
    """Write JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=indent) + "\n")


class WriterLock:
    """A lock file that keeps other processes from writing something; the system frees it when its process dies.

    Args:
        path: of the lock file; it is there as long as somebody writes.
        what: is written, for the error.
    """

    def __init__(self, path: str | Path, what: str):
        self.path, self.what = Path(path), what
        self._locks: dict[int, Any] = {}  # by process

    @property
    def _lock(self):
        """The lock of this process: a forked one inherits that of its parent, and holds nothing."""
        from filelock import FileLock

        if os.getpid() not in self._locks:
            self._locks[os.getpid()] = FileLock(self.path)
        return self._locks[os.getpid()]

    @contextlib.contextmanager
    def hold(self, wait: float = 0.0) -> Iterator[None]:
        """Hold it; who holds it already may hold it again.

        Args:
            wait: seconds to wait for another process; -1, or infinity: as long as it takes.

        Raises:
            BusyError: another process holds it.
        """
        again = self._lock.is_locked
        self._acquire(wait)
        try:
            if not again:
                with contextlib.suppress(OSError):
                    self.path.write_text(f"{os.getpid()} {socket.gethostname()}")
            yield
        finally:
            try:
                if not again:  # before it is free, or it would be the file of the next owner
                    with contextlib.suppress(OSError):
                        os.unlink(self.path)
            finally:
                self._lock.release()

    def _acquire(self, wait: float):
        from filelock import Timeout

        output_folder(self.path.parent).mkdir(parents=True, exist_ok=True)
        _refuse_link(self.path)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                raise BusyError(f"{self._owner()} is writing {self.what}: wait for it, or name another place") from None
            logging.getLogger(__name__).warning("waiting for %s, which is writing %s", self._owner(), self.what)
            try:
                self._lock.acquire(timeout=wait)
            except Timeout:
                raise BusyError(
                    f"{self._owner()} has been writing {self.what} for {wait:g} s: end it, or wait longer"
                ) from None

    def _owner(self) -> str:
        try:
            number, _, host = self.path.read_text(encoding="utf-8").partition(" ")
            elsewhere = re.fullmatch(r"[\w.-]{1,253}", host) and host != socket.gethostname()  # a shared file system
            return f"process {int(number)}" + (f" on {host}" if elsewhere else "")
        except (OSError, ValueError):  # Windows lets nobody read it
            return "another process"


def one_writer(lock: str | Path, what: str, wait: float = 0.0):
    """Hold a `WriterLock` once."""
    return WriterLock(lock, what).hold(wait)


def recover(path: str | Path):
    """Put right what killed writers of `path` left: finish an exchange that was half done, remove their drafts."""
    from filelock import FileLock, Timeout

    target = Path(path)
    for folder in _drafts(target):
        lock = FileLock(folder / LOCK)
        try:
            _refuse_link(folder / LOCK)
            lock.acquire(timeout=0)
        except (Timeout, OSError):  # its writer lives, or it is somebody else's
            continue
        try:
            new = folder / target.name
            if (folder / OLD).is_dir() and new.is_dir() and not os.path.lexists(target):
                os.rename(new, target)
                sync_folder(target.parent)
            _remove(folder, lock)
        except OSError:  # another process was quicker, or nothing may be written here
            continue
        finally:
            lock.release()


def sync_folder(folder: str | Path):
    """Make the names in a folder durable (POSIX; elsewhere the file system does as it likes)."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SUCH_CALL:
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _draft(target: Path) -> Iterator[Path]:
    """A hidden folder beside the target, locked as long as its writer lives; removed on leaving."""
    recover(target)
    folder, lock = _locked_draft(target)
    try:
        yield folder
    except Exception as error:
        named = _named(error, folder, target)
        if named is error:
            raise
        raise named from error
    finally:
        _remove(folder, lock)


def _remove(folder: Path, lock):
    """Remove a draft; while it is locked, or a writer that has just taken the same name would lose its own."""
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    if os.name == "nt":  # where a locked file cannot be removed
        shutil.rmtree(folder, ignore_errors=True)


def _locked_draft(target: Path):
    """Make a hidden folder beside the target and lock it; the folder and its lock.

    Raises:
        BusyError: other processes took or removed every name that was tried.
    """
    from filelock import FileLock, Timeout

    for _ in range(100):
        folder = target.with_name(f"{_start(target)}{secrets.token_hex(4)}{DRAFT}")
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(target)) from None
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
            if (folder / LOCK).exists():
                return folder, lock
            lock.release()
        except (Timeout, OSError, NotImplementedError) as error:
            if isinstance(error, NotImplementedError) or getattr(error, "errno", None) in NO_LOCKS:
                return folder, lock  # nobody removes what nobody can lock
            # else `recover` of another process saw it before it was locked, and removes it
    raise BusyError(f"{target}: no name is free for a draft")


def _drafts(target: Path) -> list[Path]:
    """The folders beside the target that are drafts of it; no links."""
    start = _start(target)
    try:
        with os.scandir(target.parent) as entries:
            return [
                Path(entry.path)
                for entry in entries
                if entry.name.startswith(start)
                and len(entry.name) == len(start) + 8 + len(DRAFT)
                and entry.name.endswith(DRAFT)
                and entry.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


def _start(target: Path) -> str:
    """How the names of a target's drafts begin; a name has at most 255 bytes."""
    return f".{target.name}." if len(os.fsencode(target.name)) < 230 else f".{target.name[:40]}~."


def _named(error: Exception, folder: Path, target: Path) -> Exception:
    """The error itself, or one that names the target: in place of the draft, or where a full disk has no name."""
    if not isinstance(error, OSError):  # torch and safetensors have errors of their own
        number = re.search(r"\(os error (\d+)\)", str(error))  # safetensors has removed what filled the disk
        code = int(number[1]) if number else 0
        if code not in FULL and shutil.disk_usage(folder.parent).free < ALMOST_NOTHING:
            code = errno.ENOSPC
        return OSError(code, os.strerror(code), str(target)) if code in FULL else error
    inside = str(error.filename or "").startswith(str(folder))
    nameless = error.filename is None and error.errno in FULL
    return OSError(error.errno, error.strerror, str(target)) if inside or nameless else error


def _refuse_link(path: Path):
    if path.is_symlink():
        raise OSError(errno.ELOOP, "a symbolic link where a lock file belongs: remove it", str(path))


def _sync_file(path: Path, mode: int):
    """Give a file at least these permissions, and wait until it is on the disk."""
    permissions = stat.S_IMODE(os.stat(path).st_mode)
    if permissions & mode != mode:  # safetensors and tempfile leave 0600
        os.chmod(path, permissions | mode)
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_tree(folder: Path):
    with new_file(folder / LOCK) as probe:
        mode = stat.S_IMODE(os.stat(probe).st_mode)
    os.unlink(probe)
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            if not os.path.islink(os.path.join(place, name)):
                _sync_file(Path(place, name), mode)
        sync_folder(place)


def _replace(draft: Path, target: Path):
    """Rename over a file; Windows refuses as long as a reader has it open, which is soon over."""
    for left in range(19, -1, -1):
        try:
            os.replace(draft, target)
            return
        except PermissionError:
            if os.name != "nt" or not left:
                raise
            time.sleep(0.05)


def _cannot_be_renamed(folder: Path) -> bool:
    if not folder.is_dir() or folder.is_symlink():
        return False
    return os.path.ismount(folder) or os.path.samefile(folder, os.curdir) or not os.access(folder.parent, os.W_OK)


def _move_into(draft: Path, target: Path, old: Path):
    """Move what is in a draft into a folder, `config.json` last: where it is, the rest is there, too."""
    for entry in sorted(draft.iterdir(), key=lambda path: (path.name == "config.json", path.name)):
        if entry.is_dir():
            _swap(entry, target / entry.name, old)
            shutil.rmtree(entry, ignore_errors=True)  # the old one, where there was one
            shutil.rmtree(old, ignore_errors=True)
        else:
            _replace(entry, target / entry.name)


def _swap(new: Path, target: Path, old: Path):
    """Put a folder in the place of another; the old one ends beside `new` and is removed with the draft."""
    for _ in range(100):
        try:
            os.rename(new, target)
            return
        except OSError:
            if not os.path.lexists(target):
                raise
        if _exchange(new, target):
            return
        try:
            os.rename(target, old)
        except FileNotFoundError:  # another writer moved it
            continue
        try:
            os.rename(new, target)
            return
        except BaseException:
            os.rename(old, target)
            raise
    raise BusyError(f"other processes keep replacing {target}")


def _exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one step, where the system can."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    return call(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0


__all__ = [
    "BusyError",
    "WriterLock",
    "new_file",
    "one_writer",
    "open_no_link",
    "recover",
    "sync_folder",
    "whole_file",
    "whole_folder",
    "whole_path",
    "write_draft",
    "write_json",
    "write_text",
]
