"""Configures how the C allocator of this process handles freed memory."""

from __future__ import annotations

import ctypes
from functools import cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_INT = 2**31 - 1
_LARGEST_BLOCK = 32 << 20  # more is refused on 64-bit systems


@cache
def keep_freed_memory() -> bool:
    """Makes glibc keep freed blocks of up to 32 MB for later allocations; returns whether this succeeded.

    By default glibc returns such blocks to the system, so the next tensor of that size is new memory, every page of
    which the system clears at the first write. Small networks allocate a hundred such tensors within a few
    milliseconds: without this a training step takes a quarter longer (docs/training.md). The cost is that the process
    never shrinks. Other allocators are not changed, and the result is False.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not in musl, macOS, Windows
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all([mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) == 1, mallopt(_TRIM_THRESHOLD, _LARGEST_INT) == 1])
