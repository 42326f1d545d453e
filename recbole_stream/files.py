"""Files that hold the old content or the whole new one, wherever their writer is killed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from recbole_stream.errors import InputError

__all__ = ["remove_halves", "whole_file", "write_text"]


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to be filled, which takes its place at ``path`` once all of it is on the disk.

    It is written beside its place, since a rename is atomic within one file system only. A fault leaves the old file and
    nothing beside it; a kill leaves a file for :func:`remove_halves`. Several processes may write one path: the last wins.

    Args:
        path: of the file; its folder is made where it is missing.

    Raises:
        InputError: the disk is full.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as fault:
        if _disk_is_full(fault):
            raise InputError(
                f"There is no space left on the disk to write {path}: free some, then go on; a run does with --resume."
            ) from fault
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _disk_is_full(fault: BaseException | None) -> bool:
    """Whether a write failed for want of space; torch's writer says of that only that it is elsewhere than expected."""
    while fault is not None:
        if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if isinstance(fault, RuntimeError) and "inline_container" in str(fault):
            return True
        fault = fault.__context__
    return False


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file through :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def remove_halves(folder: str | Path) -> None:
    """Remove what kills have left half-written in a folder and those below it; nobody may be writing there."""
    for half in Path(folder).rglob(".*.tmp"):
        half.unlink()
