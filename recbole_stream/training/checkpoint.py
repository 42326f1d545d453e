"""Checkpoints that a kill cannot tear."""

from __future__ import annotations

import os
from logging import getLogger
from pathlib import Path

import torch

__all__ = ["load_checkpoint", "save_checkpoint"]


def save_checkpoint(state: dict, path: Path | str) -> None:
    """Write ``state`` so that ``path`` holds either the old checkpoint or the whole new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        torch.save(state, file, pickle_protocol=4)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: Path | str) -> dict | None:
    """What :func:`save_checkpoint` wrote, or None where there is nothing or nothing readable."""
    path = Path(path)
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as fault:  # torch raises many kinds for a torn file
        getLogger().warning(f"{path} cannot be read ({type(fault).__name__}) and is left aside.")
        return None
