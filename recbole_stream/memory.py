"""How much memory this process can still have, and the sentence for what does not fit into it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from recbole_stream.errors import InputError

__all__ = ["check_fits", "free_memory"]

_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_GB = 10**9


def free_memory() -> int:
    """Bytes that this process can still take: of the machine with its swap, of its control groups, of its own limits."""
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return max(0, min([machine, *_left_by_groups(), *_left_by_limits()]))


def _left_by_groups() -> Iterator[int]:
    """What the control groups of this process leave, in version 2, as containers of today have them."""
    lines = _OWN_GROUP.read_text().splitlines() if _OWN_GROUP.is_file() else []
    for own in (line.removeprefix("0::/") for line in lines if line.startswith("0::/")):
        group = _GROUPS / own
        for folder in (group, *group.parents[: len(group.relative_to(_GROUPS).parts)]):
            try:
                most, used, swap = (
                    (folder / f"memory.{name}").read_text().strip() for name in ("max", "current", "swap.max")
                )
                pages = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            except OSError:  # memory is not counted here
                continue
            if most != "max":
                # before it kills, the kernel gives pages of files back, and swaps
                files = int(pages["active_file"]) + int(pages["inactive_file"])
                more = psutil.swap_memory().free if swap == "max" else int(swap)
                yield int(most) - int(used) + files + more


def _left_by_limits() -> Iterator[int]:
    """What ``ulimit`` leaves of address space and of private memory."""
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return
    taken = psutil.Process().memory_info()
    for limit, used in ((resource.RLIMIT_AS, taken.vms), (resource.RLIMIT_DATA, getattr(taken, "data", 0))):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield most - used


def check_fits(what: str, least: float, ways_out: Sequence[str]) -> None:
    """Refuse what does not fit into the memory that is free.

    Args:
        what: does not fit, with its size in words.
        least: bytes that it takes at least.
        ways_out: what would make it smaller, as imperatives.

    Raises:
        InputError: fewer bytes are free.
    """
    free = free_memory()
    if least > free:
        machine = max(4, 2 ** math.ceil(math.log2(1.5 * least / _GB)))  # it may take more, and others run there too
        raise InputError(
            f"{what} takes at least {_gigabytes(least)} GB of memory, and {_gigabytes(free)} GB are free: "
            f"{', '.join(ways_out)}, or use a machine with {machine} GB."
        )


def _gigabytes(count: float) -> str:
    return f"{count / _GB:,.{1 if count < 10 * _GB else 0}f}"
