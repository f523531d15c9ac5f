"""Which files are opened below a folder, as Linux tells (inotify)."""

import contextlib
import ctypes
import os
import struct

IN_OPEN, IN_ACCESS = 0x20, 0x1


@contextlib.contextmanager
def opened_below(folder):
    """Collect into a set the names of files in `folder` (not below it) that anyone opens or reads meanwhile."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    if watch < 0 or libc.inotify_add_watch(watch, os.fsencode(folder), IN_OPEN | IN_ACCESS) < 0:
        raise OSError(ctypes.get_errno(), "inotify")
    names = set()
    try:
        yield names
        with contextlib.suppress(BlockingIOError):
            while data := os.read(watch, 65536):
                place = 0
                while place < len(data):
                    length = struct.unpack_from("iIII", data, place)[3]
                    name = data[place + 16 : place + 16 + length].rstrip(b"\0").decode()
                    names |= {name} if name else set()
                    place += 16 + length
    finally:
        os.close(watch)
