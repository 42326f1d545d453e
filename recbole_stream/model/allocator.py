"""A setting of the C library's memory allocator that makes training and ranking on the CPU faster."""

from __future__ import annotations

import ctypes
from functools import cache

__all__ = ["keep_freed_memory"]

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@cache
def keep_freed_memory() -> None:
    """Let glibc's malloc keep freed blocks of up to 1 GiB for later use; it is set once for the whole process.

    By default malloc returns a large block to the kernel as soon as it is freed, and the kernel clears its pages
    before it hands them out again. A training step frees and requests thousands of such blocks, which takes a tenth
    of the time of training and ranking on the CPU. The peak memory stays the same. Without glibc nothing happens.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, 1 << 30)
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
