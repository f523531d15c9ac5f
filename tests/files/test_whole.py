"""Files and folders are whole or absent: a fault or a kill at every step, full disks, planted links, many writers."""

import contextlib
import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from vsehub.files import whole
from vsehub.files.whole import (
    BusyError,
    WriterLock,
    new_file,
    one_writer,
    recover,
    whole_file,
    whole_folder,
    whole_path,
)

fork = multiprocessing.get_context("fork")
EXCHANGE = whole._exchange
STEPS = ("open", "mkdir", "chmod", "fsync", "rename", "replace", "unlink", "rmdir")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waiting for the disk is asked for as always, and takes no time: a killed process loses nothing without it."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def write_a_file(target, text):
    with whole_file(target, "w") as file:
        file.write(text)


def write_by_name(target, text):
    with whole_path(target) as draft:
        draft.write_text(text)
        draft.chmod(0o600)  # as safetensors does


def write_a_folder(target, text):
    with whole_folder(target) as draft:
        (draft / "a").write_text(text)
        (draft / "deep").mkdir()
        (draft / "deep" / "b").write_text(text)


def write_in_two_renames(target, text):
    """A folder, where the system cannot exchange two."""
    with patch.object(whole, "_exchange", lambda *paths: False):
        write_a_folder(target, text)


def read(target):
    """The text of a file, or the one text that all files of a folder hold; None where there is nothing."""
    if not os.path.lexists(target):
        return None
    if target.is_file():
        return target.read_text()
    (text,) = {target.joinpath(name).read_text() for name in ("a", "deep/b")}
    assert sorted(path.name for path in target.rglob("*")) == ["a", "b", "deep"]
    return text


FOLDERS = [write_a_folder, write_in_two_renames]
WRITERS = [write_a_file, write_by_name, *FOLDERS]


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("write", WRITERS)
def test_it_is_written_replaced_and_nothing_is_left_over(write, tmp_path):
    target = tmp_path / "made" / "on" / "demand" / "target"
    for text in ("old", "new"):
        write(target, text)
        assert read(target) == text and left(target.parent) == ["target"]


@pytest.mark.parametrize("write", WRITERS)
def test_permissions_are_those_of_the_umask(write, tmp_path):
    before = os.umask(0o027)
    try:
        write(tmp_path / "target", "text")
    finally:
        os.umask(before)
    for path in [tmp_path / "target", *(tmp_path / "target").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o750 if path.is_dir() else 0o640), path


def stepping(monkeypatch, at, effect):
    """Count the calls of `STEPS` and of the exchange; the one of number `at` meets `effect` first."""
    count = [0]

    def counted(real):
        def step(*args, **kwargs):
            count[0] += 1
            if count[0] == at:
                effect()
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    monkeypatch.setattr(whole, "_exchange", counted(whole._exchange))
    return count


def full_disk():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def steps_of(write, target, monkeypatch, at=0, effect=None):
    with monkeypatch.context() as patched:
        count = stepping(patched, at, effect)
        try:
            write(target, "new")
        except OSError as error:
            assert at and error.errno == errno.ENOSPC
    return count[0]


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_fault_at_any_step_leaves_the_old_or_the_new_and_no_draft(write, old, tmp_path, monkeypatch):
    def prepared(name):
        target = tmp_path / name / "target"
        target.parent.mkdir()
        if old:
            write(target, old)
        return target

    steps = steps_of(write, prepared("counted"), monkeypatch)
    assert steps >= 6
    for at in range(1, steps + 1):
        target = prepared(f"full {at}")
        steps_of(write, target, monkeypatch, at, full_disk)
        assert read(target) in (old, "new")
        write(target, "again")
        assert read(target) == "again" and left(target.parent) == ["target"]


@pytest.mark.parametrize("old", [pytest.param(None, marks=pytest.mark.slow), "old"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_and_the_next_writer_sweeps(write, old, tmp_path, monkeypatch):
    target = tmp_path / "target"
    steps, found = steps_of(write, tmp_path / "counted", monkeypatch) + 5, set()
    (whole.shutil.rmtree if (tmp_path / "counted").is_dir() else os.unlink)(tmp_path / "counted")
    for at in range(1, steps + 1):
        if old:
            write(target, old)
        child = fork.Process(target=steps_of, args=(write, target, monkeypatch, at, killed))
        child.start()
        child.join(60)
        assert child.exitcode in (-signal.SIGKILL, 0)
        torn = read(target)
        recover(target)
        found.add(read(target))
        assert torn in (old, "new") or (torn is None and write is write_in_two_renames)
        assert read(target) in (old, "new") and left(tmp_path) == (["target"] if read(target) else [])
        write(target, "again")
        assert read(target) == "again" and left(tmp_path) == ["target"]
        (whole.shutil.rmtree if target.is_dir() else os.unlink)(target)
    assert found == {old, "new"}


@pytest.mark.parametrize("write", WRITERS)
def test_an_error_of_the_writer_changes_nothing(write, tmp_path):
    write(tmp_path / "target", "old")
    context = whole_folder if write in FOLDERS else whole_path
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), context(tmp_path / "target") as draft:
            (draft / "a" if draft.is_dir() else draft).write_text("half")
            raise error
    assert read(tmp_path / "target") == "old" and left(tmp_path) == ["target"]


def write_too_much(kind, target, pipe):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        (write_a_file if kind == "file" else write_a_folder)(target, "x" * 2000)
    except OSError as error:
        pipe.send((error.errno, error.filename))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_write_that_the_system_refuses_is_told_by_the_name_of_the_target(kind, tmp_path):
    (write_a_file if kind == "file" else write_a_folder)(tmp_path / "target", "old")
    here, there = fork.Pipe()
    child = fork.Process(target=write_too_much, args=(kind, tmp_path / "target", there))
    child.start()
    child.join(60)
    assert here.recv() == (errno.EFBIG, str(tmp_path / "target"))
    assert read(tmp_path / "target") == "old" and left(tmp_path) == ["target"]


def try_to_hold(lock, pipe):
    try:
        with lock.hold():
            pipe.send("held")
    except BusyError:
        pipe.send("busy")


def test_a_forked_process_has_a_lock_of_its_own(tmp_path):
    lock, (here, there) = WriterLock(tmp_path / "lock", "it"), fork.Pipe()
    with lock.hold():
        pass
    for held, expected in (contextlib.nullcontext(), "held"), (lock.hold(), "busy"):
        with held:
            child = fork.Process(target=try_to_hold, args=(lock, there))
            child.start()
            child.join(60)
            assert here.poll(1) and here.recv() == expected


def test_an_error_of_a_library_on_a_full_disk_is_told_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(whole.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="No space left on device") as caught, whole_path(tmp_path / "target"):
        raise RuntimeError("unexpected pos 64 vs 0")
    assert caught.value.filename == str(tmp_path / "target") and left(tmp_path) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("Error in faiss::write_HNSW")]
)
def test_a_new_file_that_fills_the_disk_is_named_and_removed(error, tmp_path, monkeypatch):
    monkeypatch.setattr(whole.shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="No space left on device") as caught, whole.new_file(tmp_path / "graph.faiss"):
        raise error
    assert caught.value.filename == str(tmp_path / "graph.faiss") and left(tmp_path) == []


@pytest.mark.parametrize("door", [whole_folder, whole_path])
def test_safetensors_says_that_a_disk_was_full_after_it_has_made_room(tmp_path, door):
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(OSError, match="No space left on device") as caught, door(tmp_path / "target"):
        raise RuntimeError(said)
    assert caught.value.filename == str(tmp_path / "target") and left(tmp_path) == []
    with pytest.raises(RuntimeError, match="another"), door(tmp_path / "target"):
        raise RuntimeError("another (os error 2)")


@pytest.mark.parametrize("write", WRITERS)
def test_all_of_it_is_on_the_disk_before_it_has_its_name_and_then_the_name(write, tmp_path, monkeypatch):
    write(tmp_path / "target", "old")
    events, rename = [], os.rename
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("named"), rename(*paths)))
    monkeypatch.setattr(os, "rename", lambda *paths: (rename(*paths), events.append("named")))
    monkeypatch.setattr(whole, "_exchange", lambda *paths: (events.append("named"), EXCHANGE(*paths))[1])
    write(tmp_path / "target", "new")
    content = {path.stat().st_ino for path in [tmp_path / "target", *(tmp_path / "target").rglob("*")]}
    last = len(events) - events[::-1].index("named")
    assert content <= set(events[: events.index("named")])
    assert tmp_path.stat().st_ino in events[last:]


# --- Links ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path):
    """Files of somebody else, elsewhere, and how to see that they were left alone."""
    folder = tmp_path / "victim"
    folder.mkdir()
    (folder / "a").write_text("precious")
    yield folder
    assert left(folder) == ["a"] and (folder / "a").read_text() == "precious"


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize("write", [write_a_file, write_by_name])
def test_a_link_at_the_name_of_a_file_is_replaced_not_followed(write, dangling, victim, tmp_path):
    (tmp_path / "target").symlink_to(victim / ("none" if dangling else "a"))
    write(tmp_path / "target", "new")
    assert read(tmp_path / "target") == "new" and not (tmp_path / "target").is_symlink()


@pytest.mark.parametrize("write", FOLDERS)
def test_a_link_at_the_name_of_a_folder_is_replaced_not_followed(write, victim, tmp_path):
    (tmp_path / "target").symlink_to(victim)
    write(tmp_path / "target", "new")
    assert read(tmp_path / "target") == "new" and not (tmp_path / "target").is_symlink()


def test_a_link_at_the_name_of_a_new_file_is_removed(victim, tmp_path):
    (tmp_path / "target").symlink_to(victim / "a")
    with new_file(tmp_path / "target") as path:
        path.write_text("new")
    assert read(tmp_path / "target") == "new"


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("inside", ["", "target", ".lock", ".old"])
def test_a_link_at_the_name_of_a_draft_is_not_followed(write, inside, victim, tmp_path, monkeypatch):
    names = iter(["aaaaaaaa", "bbbbbbbb"])
    monkeypatch.setattr(whole.secrets, "token_hex", lambda size: next(names))
    draft = tmp_path / ".target.aaaaaaaa.draft"
    if inside:
        draft.mkdir()
    (draft / inside).symlink_to(victim if inside in ("", ".old") else victim / "a")
    write(tmp_path / "target", "new")
    assert read(tmp_path / "target") == "new"


def test_a_link_at_the_name_of_a_lock_is_refused(victim, tmp_path):
    (tmp_path / "out.lock").symlink_to(victim / "a")
    with pytest.raises(OSError, match="symbolic link.*remove it"), one_writer(tmp_path / "out.lock", "out"):
        pass


# --- Names ---------------------------------------------------------------------------------------------------------


def test_what_has_the_wrong_kind_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="name a file"), whole_file(tmp_path / "folder"):
        pass
    with pytest.raises(NotADirectoryError, match="is a file"), whole_folder(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_text() == "mine" and left(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("name", ["x" * 255, "日" * 85, "with space [*]?", ".hidden", "a.tar.gz"])
def test_any_name_will_do(write, name, tmp_path):
    for text in ("old", "new"):
        write(tmp_path / name, text)
        assert read(tmp_path / name) == text and left(tmp_path) == [name]


def test_devices_are_written_to_not_replaced(capfd):
    whole.write_json("/dev/null", 1)
    whole.write_json("/dev/stdout", {"a": 1}, None)
    assert capfd.readouterr().out == '{"a": 1}\n' and stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize("why", ["mount point", "working directory", "parent is read only"])
def test_a_folder_that_cannot_be_renamed_is_filled_and_keeps_what_else_is_in_it(why, tmp_path, monkeypatch):
    target = tmp_path / "target"
    (target / "deep").mkdir(parents=True)
    for name in ("mine", "a", "deep/stale"):
        (target / name).write_text("old")
    if why == "mount point":
        monkeypatch.setattr(os.path, "ismount", lambda path: str(path) == str(target))
    elif why == "working directory":
        monkeypatch.chdir(target)
    else:
        monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))
    inode = target.stat().st_ino
    for text in ("first", "second"):
        write_a_folder(os.curdir if why == "working directory" else target, text)
        assert sorted(str(path.relative_to(target)) for path in target.rglob("*")) == ["a", "deep", "deep/b", "mine"]
        assert {(target / name).read_text() for name in ("a", "deep/b")} == {text}
    assert target.stat().st_ino == inode and (target / "mine").read_text() == "old"
    with pytest.raises(ValueError), whole_folder(target) as draft:
        (draft / "a").write_text("half")
        raise ValueError
    assert (target / "a").read_text() == "second" and left(target) == ["a", "deep", "mine"]


# --- Many writers --------------------------------------------------------------------------------------------------


def write_often(write, target, mark):
    for count in range(60):
        write(target, f"{mark} {count} " + mark * 5000)


@pytest.mark.parametrize("write", [write_a_file, write_a_folder])
def test_a_reader_meets_whole_content_whatever_several_writers_do(write, tmp_path):
    target = tmp_path / "target"
    write(target, "0 0 " + "0" * 5000)
    writers = [fork.Process(target=write_often, args=(write, target, mark)) for mark in "ABCD"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        for name in ("a", "deep/b") if write is write_a_folder else ("",):
            try:
                mark, count, text = (target / name).read_text().split()
            except FileNotFoundError:  # a folder that has just gone: its name is that of another one now
                assert write is write_a_folder and target.is_dir()
                continue
            assert text == mark * 5000
            seen.add((mark, count))
    assert [writer.exitcode for writer in writers] == [0] * 4 and len(seen) > 3
    assert left(tmp_path) == ["target"]


def test_a_draft_of_a_living_writer_is_left_alone(tmp_path):
    with whole_path(tmp_path / "target") as draft:
        draft.write_text("first")
        write_a_file(tmp_path / "target", "second")
        assert draft.read_text() == "first" and read(tmp_path / "target") == "second"
    assert read(tmp_path / "target") == "first" and left(tmp_path) == ["target"]


def test_one_writer_at_a_time_and_the_dead_hold_nothing(tmp_path):
    lock, ready = tmp_path / "out.lock", fork.Event()

    def hold():
        with one_writer(lock, "out"):
            ready.set()
            signal.pause()

    child = fork.Process(target=hold)
    child.start()
    assert ready.wait(30)
    with pytest.raises(BusyError, match=f"process {child.pid} is writing out: wait for it"), one_writer(lock, "out"):
        pass
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    with one_writer(lock, "out", wait=10):
        assert lock.exists()
    assert left(tmp_path) == []


def count_up(path, times):
    for _ in range(times):
        with one_writer(f"{path}.lock", str(path), wait=-1):
            whole.write_json(path, json.loads(path.read_text()) + 1)


def test_who_waits_for_the_lock_sees_what_the_other_wrote(tmp_path):
    path = tmp_path / "count"
    whole.write_json(path, 0)
    children = [fork.Process(target=count_up, args=(path, 20)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert json.loads(path.read_text()) == 60 and left(tmp_path) == ["count"]
