"""Keep the memory that a process has used, instead of giving it back to the system and asking for it again.

The C library of Linux maps every block of 32 MB or more anew and unmaps it when it is freed, so each layer of a tower
on a CPU pays for fresh pages. On virtual machines these page faults can cost more than the arithmetic.
"""

import ctypes
import sys

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
NEVER, SPARE = 2**31 - 1, 64 * 2**20  # bytes


def reuse_memory() -> bool:
    """Tell the C library to keep freed memory for the next layer; from then on, the process only grows.

    What was freed before goes back to the system first: reading a data set can leave hundreds of megabytes.

    Returns:
        Whether the C library took it; only glibc does.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        library = ctypes.CDLL(None)
        mallopt, trim = library.mallopt, library.malloc_trim
    except (OSError, AttributeError):  # another C library
        return False
    trim(0)
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_TOP_PAD, SPARE)])


__all__ = ["reuse_memory"]
