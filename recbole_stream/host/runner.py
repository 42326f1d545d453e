"""A run: the models of a list, one after another, on the same data, split and evaluator, into one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_stream.benchmark.results import RESULTS_FILE, Row, read_results, write_atomically, write_results
from recbole_stream.benchmark.tables import csv_table, latex_table, markdown_table, text_table
from recbole_stream.errors import InputError
from recbole_stream.host.checks import locate_data
from recbole_stream.host.job import configure, run_job

__all__ = ["run"]

COMMAND_FILE = "command.json"


def run(options: Mapping[str, Any], command: Sequence[str]) -> list[Row]:
    """Train the models, rank the test users, write and print the table.

    Args:
        options: keys and typed values; ``model`` and ``config_files`` are lists.
        command: as it was typed, for the record.

    Returns:
        the rows, in the order in which models were named.

    Raises:
        InputError: something the user gave cannot be used; nothing was trained.
    """
    folder, options = _open_folder(dict(options))
    names = list(options.get("model") or [])
    if not names:
        raise InputError("No model is named: add --model=STREAMRec.")
    if "STREAMRec" in names and "TIGER" not in names:
        names.insert(0, "TIGER")  # the fast twin, in the same table
    dataset = str(options.get("dataset", "ml-100k"))
    options = locate_data(options, dataset)
    # all faults come to light here, before any training
    configs = {name: configure(name, names, dataset, options, folder) for name in names}

    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / COMMAND_FILE, json.dumps({"command": list(command), "options": options}, indent=1))
    rows: dict[str, list[Row]] = {}
    for row in _finished(folder):
        rows.setdefault(row.model, []).append(row)
    # STREAMRec comes first: what it took is TIGER's budget
    for name in sorted(names, key=lambda name: name != "STREAMRec"):
        if name in rows:
            getLogger().info(f"{name} was finished before.")
            continue
        config = configs[name]
        if name == "TIGER" and "STREAMRec" in rows and not config["max_train_seconds"]:
            config["max_train_seconds"] = rows["STREAMRec"][-1].train_seconds
        rows[name] = run_job(config, folder, command)
        _write([row for model in names for row in rows.get(model, [])], folder)
    ordered = [row for name in names for row in rows[name]]
    _write(ordered, folder)  # a kill may have come between the results and their tables
    shutil.rmtree(folder / "progress", ignore_errors=True)
    print("\n" + text_table(ordered) + f"\n\nWritten to {folder}", flush=True)
    return ordered


def _open_folder(options: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of the run, and its options: those given, or those of the run that goes on."""
    resumed, given = options.pop("resume", None), options.pop("output_dir", None)
    if resumed:
        folder = Path(str(resumed))
        if not (folder / COMMAND_FILE).is_file():
            raise InputError(f"{folder} holds no run to go on with: it has no {COMMAND_FILE}.")
        before = json.loads((folder / COMMAND_FILE).read_text())["options"]
        changed = [key for key, value in options.items() if before.get(key) != value]
        if changed:
            raise InputError(f"A resumed run keeps its options, but {changed[0]} is another one: leave it out.")
        return folder, before
    if given is None:
        models = "-".join(options.get("model") or ["run"])
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        given = f"results/{options.get('dataset', 'ml-100k')}-{models}-{stamp}"
    folder = Path(str(given))
    if (folder / COMMAND_FILE).exists():
        raise InputError(f"{folder} already holds a run: choose another --output_dir, or go on with --resume={folder}.")
    return folder, options


def _finished(folder: Path) -> list[Row]:
    return read_results(folder) if (folder / RESULTS_FILE).is_file() else []


def _write(rows: list[Row], folder: Path) -> None:
    write_results(folder, rows, {})
    write_atomically(folder / "table.md", markdown_table(rows))
    write_atomically(folder / "table.tex", latex_table(rows))
    write_atomically(folder / "table.csv", csv_table(rows))
