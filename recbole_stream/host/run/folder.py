"""The folder of a run: made for a new run, or opened again for one that goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.files import remove_halves, write_text
from recbole_stream.reporting.results import COMMAND_FILE

__all__ = ["open_folder", "record_command"]


def open_folder(options: dict[str, Any], command: Sequence[str]) -> tuple[Path, dict[str, Any], list[str]]:
    """The folder of a run, the run's options and its command.

    A resumed run has the options and the command with which it began; a new one has those given.

    Args:
        options: those given; ``resume`` and ``output_dir`` are taken out of them.
        command: as it was typed.

    Raises:
        InputError: there is no run to resume, it began with other options, or the folder holds another run.
    """
    resumed, given = options.pop("resume", None), options.pop("output_dir", None)
    if resumed:
        return _reopen(Path(str(resumed)), options)
    if given is None:
        models = "-".join(options.get("model") or ["run"])
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        given = f"results/{options.get('dataset', 'ml-100k')}-{models}-{stamp}"
    folder = Path(str(given))
    if (folder / COMMAND_FILE).exists():
        raise InputError(f"{folder} already holds a run: choose another --output_dir, or go on with --resume={folder}.")
    return folder, options, list(command)


def _reopen(folder: Path, options: dict[str, Any]) -> tuple[Path, dict[str, Any], list[str]]:
    if not (folder / COMMAND_FILE).is_file():
        raise InputError(f"{folder} holds no run to go on with: it has no {COMMAND_FILE}.")
    begun = json.loads((folder / COMMAND_FILE).read_text())
    before = begun["options"]
    changed = [key for key, value in options.items() if before.get(key) != value]
    if changed:
        raise InputError(f"A resumed run keeps its options, but {changed[0]} is another one: leave it out.")
    remove_halves(folder)
    return folder, before, begun["command"]


def record_command(folder: Path, options: dict[str, Any], command: Sequence[str]) -> None:
    """Make the folder, and write into it what was asked for: from here on it holds a run."""
    write_text(folder / COMMAND_FILE, json.dumps({"command": command, "options": options}, indent=1))
