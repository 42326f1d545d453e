"""Memory that is asked for again at once need not be given back first."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_freed_memory"]

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 1 GiB for the next tensor, once for the process.

    By default it hands large blocks back to the kernel, which has to clear every page anew for each of the
    thousands of activations of a step: a tenth of the time of training and ranking on the CPU. What a process
    holds at its peak stays the same. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
