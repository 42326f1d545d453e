"""A content-addressed cache: what was computed from the same content is read, not computed again."""

from __future__ import annotations

import hashlib
import json
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from recbole_stream.files import whole_file

__all__ = ["cached_arrays", "content_hash"]

Arrays = dict[str, np.ndarray]
_INFO = "info_json"


def content_hash(*parts: str | int | float | None | list | tuple | dict | np.ndarray) -> str:
    """SHA-256 (32 hex digits of it) over arrays, by their bytes, and JSON-able values.

    Every part is preceded by its kind and size, so that ("ab", "c") and
    ("a", "bc") differ.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"array {part.dtype.str} {part.shape};".encode())
            rows = max(1, (16 << 20) // max(1, part[:1].nbytes))  # 16 MiB at a time: never a copy of a large array
            for start in range(0, len(part), rows):
                digest.update(np.ascontiguousarray(part[start : start + rows]).data)
        else:
            text = json.dumps(part, sort_keys=True).encode()
            digest.update(f"json {len(text)};".encode())
            digest.update(text)
    return digest.hexdigest()[:32]


def cached_arrays(
    cache_dir: str | Path | None, kind: str, key: str, compute: Callable[[], tuple[Arrays, dict]]
) -> tuple[Arrays, dict]:
    """Arrays and a JSON-able description stored as `<cache_dir>/<kind>-<key>.npz`, computed where absent.

    Of several processes that want the same at once, one computes and the others
    wait for it. A reader never sees half of a file. One that cannot be read (torn,
    or not ours) is computed again and replaced.

    Args:
        cache_dir: folder, made where it does not exist; None computes without storing.
        kind: what it is, the first part of the file name.
        key: `content_hash` of everything that the result depends on.
        compute: makes (arrays, info).

    Raises:
        OSError: the folder cannot be written.
    """
    if cache_dir is None:
        return compute()
    path = Path(cache_dir) / f"{kind}-{key}.npz"
    stored = _read(path, kind)
    if stored is not None:
        return stored
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    try:
        with FileLock(lock):
            stored = _read(path, kind)  # by whoever held the lock before
            if stored is None:
                stored = compute()
                _write(path, *stored)
            return stored
    finally:
        # a process that comes between takes a new lock, and finds what was written
        lock.unlink(missing_ok=True)


def _read(path: Path, kind: str) -> tuple[Arrays, dict] | None:
    """What is stored, None where there is nothing that can be read."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        info = json.loads(arrays.pop(_INFO).item())
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        logging.getLogger().warning("%s cannot be read (%s); it is computed again.", path, error)
        return None
    logging.getLogger().info("Read %s from %s", kind, path)
    return arrays, info


def _write(path: Path, arrays: Arrays, info: dict) -> None:
    with whole_file(path) as file:
        np.savez(file, **arrays, **{_INFO: np.array(json.dumps(info))})  # type: ignore[arg-type]
