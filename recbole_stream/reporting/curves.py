"""Curves: what a training reported epoch by epoch, ``curves/<Model>-seed<SEED>.json`` in a run's folder.

The file is a list of stages in their order. Each has

* ``stage``: as in the rows of the results, empty for a model that has only one;
* ``valid``: metrics of the best epoch on the validation split;
* ``epoch``: the best epoch, from 0; -1 is the model as it entered the stage;
* ``seconds``: wall time of training the stage, validation included;
* ``curves``: one object of scalars for each epoch: ``loss``, ``valid`` (the metric that chooses the best epoch,
  where the epoch was validated) and what else the stage reports. RecBole's own models report ``seconds`` as well,
  the time since training began.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_stream.errors import InputError
from recbole_stream.files import write_text

__all__ = ["curves_file", "read_curves", "write_curves"]

CURVES_FOLDER = "curves"


def curves_file(folder: str | Path, model: str, seed: int) -> Path:
    """Where a run's folder keeps the curves of a model."""
    return Path(folder) / CURVES_FOLDER / f"{model}-seed{seed}.json"


def write_curves(path: str | Path, stages: Sequence[dict[str, Any]]) -> None:
    """Write the stages; the folder is made where it is missing. Numbers that JSON lacks (nan, inf) become null."""
    path = Path(path)
    records = [
        {
            **stage,
            "valid": {name: _number(value) for name, value in stage["valid"].items()},
            "curves": [{name: _number(value) for name, value in epoch.items()} for epoch in stage["curves"]],
        }
        for stage in stages
    ]
    write_text(path, json.dumps(records, indent=1, allow_nan=False) + "\n")


def read_curves(folder: str | Path, model: str, seed: int) -> list[dict[str, Any]]:
    """The stages of a model.

    Raises:
        InputError: the file is missing or torn.
    """
    path = curves_file(folder, model, seed)
    if not path.is_file():
        raise InputError(f"There is no {path}: train {model} again, its run kept no curves.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as fault:
        raise InputError(f"{path} cannot be read ({fault}): delete it and train {model} again.") from None


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
