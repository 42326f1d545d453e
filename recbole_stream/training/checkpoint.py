"""Checkpoints that a kill cannot tear, and how far a training has come."""

from __future__ import annotations

import os
import random
import time
import zipfile
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_stream.files import whole_file
from recbole_stream.training.processes import all_gather, broadcast, is_first, process_index, processes

__all__ = ["Progress", "load_checkpoint", "random_state", "restore_random_state", "save_checkpoint"]


def save_checkpoint(state: dict, path: Path | str) -> None:
    """Write ``state`` so that ``path`` holds either the old checkpoint or the whole new one."""
    with whole_file(path) as file:
        torch.save(state, file, pickle_protocol=4)


def load_checkpoint(path: Path | str) -> dict | None:
    """What :func:`save_checkpoint` wrote, or None where there is nothing or nothing readable."""
    path = Path(path)
    if not path.exists():
        return None
    try:
        # torch itself loads a file whose bytes have changed without an error
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as fault:  # torch raises many kinds for a torn file
        getLogger().warning(f"{path} cannot be read ({type(fault).__name__}) and is left aside.")
        return None


def random_state() -> dict[str, Any]:
    """The states of all generators that a training draws from: Python's, NumPy's, torch's and the GPU's."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo what was drawn since :func:`random_state` gave ``state``."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])


class Progress:
    """The progress file of a training: the last state that was saved, and the one before.

    The random states of all processes are saved with it and restored on loading; only process 0 writes.

    Args:
        file: ``stage-0.pth``; the state before it is ``stage-0.previous.pth``.
        owner: name of the run that the states belong to; states of another owner are not loaded.
        seconds: see :meth:`due`.
    """

    def __init__(self, file: Path | str, owner: str = "", seconds: float = 600.0) -> None:
        self.file = Path(file)
        self.previous = self.file.with_suffix(f".previous{self.file.suffix}")
        self.owner, self.seconds = owner, seconds
        self._saved, self._good = time.monotonic(), False

    def due(self) -> bool:
        """Whether ``seconds`` have passed since the last state was saved, or since this object was made.

        Never with several processes: they would have to agree on it after every batch.
        """
        return processes() == 1 and time.monotonic() - self._saved >= self.seconds

    def save(self, state: dict[str, Any]) -> None:
        """Save ``state`` and the random states; the state that was last becomes the previous one."""
        randoms = all_gather(random_state())
        if is_first():
            kept = {"owner": self.owner, "random": randoms, "state": state}
            with whole_file(self.file) as file:
                torch.save(kept, file, pickle_protocol=4)
                # a kill right after leaves the previous state alone; a file that load refused does not replace it
                if self._good and self.file.exists():
                    os.replace(self.file, self.previous)
            self._good = True
        self._saved = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """The last state, or the previous one where that is torn or foreign; None if there is neither."""
        kept = broadcast(self._read)
        if kept is None:
            return None
        randoms = kept["random"]
        if len(randoms) != processes():
            getLogger().warning(
                f"{self.file} was kept by {len(randoms)} processes and goes on with {processes()}: "
                "the training ends otherwise than it would have."
            )
        restore_random_state(randoms[min(process_index(), len(randoms) - 1)])
        return kept["state"]

    def _read(self) -> dict[str, Any] | None:
        for file in (self.file, self.previous):
            kept = load_checkpoint(file)
            if kept is None:
                continue
            if not isinstance(kept, dict) or kept.get("owner") != self.owner:
                getLogger().warning(f"{file} belongs to another run and is left aside.")
            else:
                self._good = file == self.file
                return kept
        return None
