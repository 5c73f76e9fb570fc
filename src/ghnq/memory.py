"""How this process's allocator treats memory that was freed."""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_INT = 2**31 - 1
_LARGEST_BLOCK = 32 << 20  # more is refused on 64-bit systems


@cache
def keep_freed_memory() -> bool:
    """Has the allocator keep freed blocks of up to 32 MB for the next tensors; returns whether it does.

    By default glibc gives such blocks back to the system, and the next tensor of that size is new memory, every page of
    which the system has to clear when it is first written. Small networks make a hundred such tensors in a few
    milliseconds: without this a training step takes a quarter longer (docs/training.md). What it costs: the process
    stays as large as it once was. Other allocators are left alone, and say so by False.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows have none
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all([mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) == 1, mallopt(_TRIM_THRESHOLD, _LARGEST_INT) == 1])
