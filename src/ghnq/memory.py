"""The memory of this machine: how much is available, and how the C allocator handles what is freed."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST_INT = 2**31 - 1
_LARGEST_BLOCK = 32 << 20  # more is refused on 64-bit systems


@cache
def keep_freed_memory() -> bool:
    """Makes glibc keep freed blocks of up to 32 MB for later allocations; returns whether this succeeded.

    By default glibc returns such blocks to the system, so the next tensor of that size is new memory, every page of
    which the system clears at the first write. Small networks allocate a hundred such tensors within a few
    milliseconds: without this a training step takes a quarter longer (docs/results/training.md). The cost is that the
    process never shrinks. Other allocators are not changed, and the result is False.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not in musl, macOS, Windows
        return False
    mallopt.argtypes, mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return all([mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK) == 1, mallopt(_TRIM_THRESHOLD, _LARGEST_INT) == 1])


def available_memory() -> int | None:
    """Returns how many bytes new tensors can take, or None where the system does not say.

    On Linux what is free or can be freed, and no more than the control group of this process allows; elsewhere, where
    known, all physical memory.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return _physical_memory()
    limit, used = (_control_group_bytes(name) for name in ("memory.max", "memory.current"))
    return found if limit is None or used is None else min(found, max(0, limit - used))


def _physical_memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on Windows
        return None


def _control_group_bytes(name: str) -> int | None:
    """Returns a number of the control group (version 2) that this process sees as its root; None: there is none."""
    try:
        return int((Path("/sys/fs/cgroup") / name).read_text(encoding="ascii"))
    except (OSError, ValueError):  # the file says `max` where there is no limit
        return None
