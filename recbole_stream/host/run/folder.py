"""The folder of a run: who may write into it, what was asked for, and which data its rows belong to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from recbole.config import Config

from recbole_stream.errors import InputError
from recbole_stream.files import remove_halves, write_text
from recbole_stream.reporting.results import COMMAND_FILE
from recbole_stream.training.processes import broadcast

__all__ = ["begin_run", "check_data_unchanged", "check_same_data", "forget_run", "open_folder", "record_data"]

DATA_FILE = "data.json"
LOCK_FILE = ".lock"
# the data loader's workers share the lock of a process that is killed, and notice its end within 5 seconds
_SECONDS = 8.0

Asked = tuple[Path, dict[str, Any], list[str]]


@contextmanager
def open_folder(options: dict[str, Any], command: Sequence[str]) -> Iterator[Asked]:
    """Hold the folder of a run, so that no other process writes into it.

    A new run without ``output_dir`` has a folder that nothing else ever had. A folder that was made here, and in which no
    run has begun, is removed again.

    Args:
        options: those given; ``resume`` and ``output_dir`` are taken out of them.
        command: as it was typed.

    Yields:
        the folder, the run's options and its command: those given, or those with which the resumed run began.

    Raises:
        InputError: there is no run to resume, it began with other options, or the folder holds another run, live or ended.
    """
    resumed, given = options.pop("resume", None), options.pop("output_dir", None)
    held: list[FileLock] = []  # by the first of several processes
    made: list[Path] = []

    def claim() -> Asked:
        if resumed and not Path(str(resumed), COMMAND_FILE).is_file():
            raise InputError(f"{resumed} holds no run to go on with: it has no {COMMAND_FILE}.")
        if resumed or given is not None:
            folder = Path(str(resumed or given))
            made.extend([] if folder.exists() else [folder])
            folder.mkdir(parents=True, exist_ok=True)
        else:
            folder = _new_folder(options)
            made.append(folder)
        try:
            held.append(FileLock(folder / LOCK_FILE))
            held[0].acquire(timeout=_SECONDS if resumed else 0)
        except Timeout:
            held.clear()
            made.clear()
            raise InputError(f"{folder} belongs to a run that is still going: wait for its end, or stop it.") from None
        if resumed:
            remove_halves(folder)
            return folder, *_as_begun(folder, options)
        if (folder / COMMAND_FILE).exists():
            raise InputError(
                f"{folder} already holds a run: choose another --output_dir, or go on with --resume={folder}."
            )
        return folder, options, list(command)

    try:
        yield broadcast(claim)
    finally:
        for lock in held:
            lock.release()
        for folder in made:
            _remove_empty(folder)


def _new_folder(options: dict[str, Any]) -> Path:
    """A folder that is named by the data set, the models and the time, and that did not exist."""
    models = "-".join(options.get("model") or ["run"])
    name = f"{options.get('dataset', 'ml-100k')}-{models}-{datetime.now().strftime('%Y%m%d-%H%M%S')}"
    Path("results").mkdir(exist_ok=True)
    for number in count(1):
        folder = Path("results", name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:  # of a run that began in the same second
            continue
        return folder
    raise AssertionError


def _as_begun(folder: Path, options: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The options and the command with which a run began."""
    begun = json.loads((folder / COMMAND_FILE).read_text())
    before = begun["options"]
    # the folder may have been moved, and the data with it
    before |= {key: options[key] for key in ("data_path", "cache_dir") if key in options}
    changed = [key for key, value in options.items() if before.get(key) != value]
    if changed:
        raise InputError(f"A resumed run keeps its options, but {changed[0]} is another one: leave it out.")
    return before, begun["command"]


def _remove_empty(folder: Path) -> None:
    if {path.name for path in folder.iterdir()} <= {LOCK_FILE}:
        (folder / LOCK_FILE).unlink(missing_ok=True)
        folder.rmdir()


def begin_run(folder: Path, options: dict[str, Any], command: Sequence[str]) -> None:
    """Write down what was asked for: from here on the folder holds a run."""
    write_text(folder / COMMAND_FILE, json.dumps({"command": command, "options": options}, indent=1))


def forget_run(folder: Path) -> None:
    """Undo :func:`begin_run`: the corrected command, or one on corrected data, may take the folder."""
    for name in (COMMAND_FILE, DATA_FILE):
        (folder / name).unlink(missing_ok=True)


def check_data_unchanged(folder: Path, configs: Iterable[Config], config_files: Sequence[str]) -> None:
    """Check that a run's data are those with which it began, as far as :func:`record_data` has written them down.

    Args:
        folder: of the run.
        configs: of its models.
        config_files: the user's YAML files, which may filter the data.

    Raises:
        InputError: a file is another one now.
    """
    record = folder / DATA_FILE
    if not record.is_file():
        return
    before, now = json.loads(record.read_text()), _fingerprints(configs, config_files)
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    if changed:
        raise InputError(
            f"{changed[0]} has changed since {folder} began, whose rows belong to the old one: bring that back, or begin "
            "another run."
        )


def check_same_data(folder: Path, config: Config) -> None:
    """Check that another run had the files that a configuration reads its data from, as far as both have them.

    Raises:
        InputError: one is another file now.
    """
    record = folder / DATA_FILE
    before = json.loads(record.read_text()) if record.is_file() else {}
    for name, digest in _fingerprints([config], []).items():
        if before.get(name, digest) != digest:
            raise InputError(f"{name} is another file than {folder} was trained on: use that one.")


def record_data(folder: Path, configs: Iterable[Config], config_files: Sequence[str]) -> None:
    """Write down once on which data a run began; data that are still to be downloaded have to be there first."""
    if not (folder / DATA_FILE).is_file():
        fingerprints = _fingerprints(configs, config_files)
        if fingerprints:
            write_text(folder / DATA_FILE, json.dumps(fingerprints, indent=1) + "\n")


def _fingerprints(configs: Iterable[Config], config_files: Sequence[str]) -> dict[str, str]:
    """File -> SHA-256 of what it holds; empty where the data are not there yet."""
    files = {path.name: path for config in configs for path in _data_files(config) if path.is_file()}
    if files:
        files |= {name: Path(name) for name in config_files}
    fingerprints = {}
    for name, path in files.items():
        with path.open("rb") as file:
            fingerprints[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return fingerprints


def _data_files(config: Config) -> Iterator[Path]:
    """The files that a configuration reads its data from."""
    folder, name = Path(config["data_path"]), config["dataset"]
    parts = [f"{part}.inter" for part in config["benchmark_filename"] or []] or ["inter"]
    for ending in (*parts, "item", "user", *(config["additional_feat_suffix"] or [])):
        yield folder / f"{name}.{ending}"
    if config["semantic_ids_file"]:
        yield folder / config["semantic_ids_file"]
