"""Files that hold the old content or the whole new one, wherever their writer is killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["remove_halves", "whole_file", "write_text"]


@contextmanager
def whole_file(path: str | Path) -> Iterator[BinaryIO]:
    """A file to be filled, which takes its place at ``path`` once all of it is on the disk.

    It is written beside its place, since a rename is atomic within one file system only. A fault leaves the old file and
    nothing beside it; a kill leaves a file for :func:`remove_halves`. Several processes may write one path: the last wins.

    Args:
        path: of the file; its folder is made where it is missing.

    Raises:
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
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file through :func:`whole_file`."""
    with whole_file(path) as file:
        file.write(text.encode())


def remove_halves(folder: str | Path) -> None:
    """Remove what kills have left half-written in a folder and those below it; nobody may be writing there."""
    for half in Path(folder).rglob(".*.tmp"):
        half.unlink()
