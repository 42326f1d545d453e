"""Result rows: what a run measured, and the file ``results.json`` that holds it.

``results.json`` is a list with one object per row, the keys being the fields of
:class:`Row`.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path

import numpy as np
import torch

from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.seeds import SEEDING

__all__ = [
    "COMMAND_FILE",
    "RESULTS_FILE",
    "Row",
    "write_results",
    "read_results",
    "run_environment",
]

RESULTS_FILE = "results.json"
COMMAND_FILE = "command.json"  # the command line that started the run

PACKAGES = (
    "recbole-stream",
    "recbole",
    "torch",
    "numpy",
    "pandas",
    "transformers",
    "sentence-transformers",
)


@dataclass
class Row:
    """One trained model, or one stage of it, on one data set with one seed.

    Attributes:
        model: name as RecBole knows it.
        stage: stage of the training, such as "PT"; empty for a model that has only one.
        dataset: name of the data set.
        seed: random seed of the run.
        valid, test: metric -> value, RecBole's names ("recall@10", "ndcg@5").
        train_seconds: wall clock of all training that led to this row, the stages before
            it included; None if not measured.
        rank_seconds_per_1000_users: wall clock of ranking the catalogue for all test rows of 1,000 users; None if not
            measured.
        parameters: number of trainable parameters.
        final: whether this row is the checkpoint that the run keeps; of a model's
            stages exactly one is, of a model with a single stage always that one.
        run: what belongs to the run: versions, encoder, device, command, configuration.
    """

    model: str
    stage: str
    dataset: str
    seed: int
    valid: dict[str, float | None]
    test: dict[str, float | None]
    train_seconds: float | None
    rank_seconds_per_1000_users: float | None
    parameters: int
    final: bool = True
    run: dict = field(default_factory=dict)


def write_results(folder: str | Path, rows: Iterable[Row], run: Mapping) -> Path:
    """Write ``results.json`` into a folder, made where it does not exist; returns its path.

    Args:
        folder: where to write.
        rows: in the order in which they are to be shown.
        run: what all rows have in common; a row's own ``run`` is laid over it.

    Any value may appear in ``run``: paths, enums, devices and other objects become
    strings, arrays and sets lists, and numbers that JSON lacks (nan, inf) null.
    """
    records = []
    for row in rows:
        record = {f.name: getattr(row, f.name) for f in fields(row)}
        record["run"] = {**run, **row.run}
        records.append(_json_value(record))
    path = Path(folder) / RESULTS_FILE
    text = json.dumps(records, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")
    return path


def read_results(folder: str | Path) -> list[Row]:
    """The rows of a folder's ``results.json``, in their order, each with its ``run``.

    Raises:
        InputError: the file is missing or is not a list of rows.
    """
    path = Path(folder) / RESULTS_FILE
    if not path.is_file():
        raise InputError(f"{path} does not exist; name the folder of a run that has ended.")
    try:
        return [Row(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a list of result rows ({error}); run it again.") from error


def run_environment(command: Sequence[str], device: torch.device | str) -> dict:
    """What a figure depends on besides the configuration, to be written under ``run``.

    Args:
        command: the command line, one string per word.
        device: where the model ran.

    Returns:
        ``versions`` (package -> version, None where it is not installed; ``python``
        too), ``hardware`` (``cpu``, ``cores``, ``threads``, ``gpu`` or None),
        ``device``, ``seeding`` (see :mod:`recbole_stream.seeds`), ``command`` (one line for a shell) and ``date``
        (UTC, ISO 8601).
    """
    device = torch.device(device)
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "hardware": {
            "cpu": _cpu_model(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "device": str(device),
        "seeding": SEEDING,
        "command": shlex.join(command),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name; Linux keeps it where the platform module does not look."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _json_value(value: object) -> object:
    """``value`` in the types of JSON."""
    if isinstance(value, Enum):  # before int and str, which an enum may also be
        return value.name
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic | np.ndarray | torch.Tensor):
        return _json_value(value.tolist())
    if isinstance(value, Mapping):
        return {str(_json_value(k)): _json_value(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((_json_value(v) for v in value), key=str)
    if isinstance(value, list | tuple):
        return [_json_value(v) for v in value]
    return str(value)
