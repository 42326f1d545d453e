"""Several runs in one folder, as if one command had made them: seeds that were trained apart, models that came later."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from recbole_stream.errors import InputError
from recbole_stream.reporting.comparison import comparison_files
from recbole_stream.reporting.curves import curves_file
from recbole_stream.reporting.ranks import ranks_file
from recbole_stream.reporting.report import REPORT_FILE
from recbole_stream.reporting.results import COMMAND_FILE, RESULTS_FILE, Row, read_results, write_results

__all__ = ["gather", "read_runs"]


def read_runs(runs: Sequence[str | Path]) -> list[tuple[Path, list[Row]]]:
    """The folder of each run, and its rows.

    Args:
        runs: folders, or ``FOLDER:MODEL,MODEL`` for some models of a run.

    Raises:
        InputError: a run has no results or not the model that is named, none has any rows yet, or two have the same
            model with the same seed.
    """
    parts = [_read(run) for run in runs]
    known: set[tuple[str, str, str, int]] = set()
    for folder, rows in parts:
        keys = [(row.model, row.stage, row.dataset, row.seed) for row in rows]
        if again := [row for row, key in zip(rows, keys) if key in known]:
            raise InputError(
                f"{folder} has {again[0].model} with seed {again[0].seed} as a run before it: name the models "
                f"that are meant, as in {folder}:{rows[0].model}, or compare such runs instead."
            )
        known.update(keys)
    if not known:
        raise InputError(f"{runs[0]} has no results yet: let the run finish a model first.")
    return parts


def gather(parts: Sequence[tuple[Path, list[Row]]], folder: str | Path) -> None:
    """Put the results of several runs, and what they kept of ranks and curves, into a folder.

    All that works on a run without its models works on that folder: tests, tables, the page.

    Args:
        parts: from :func:`read_runs`.
        folder: exists; what it gathered before, and the tests and the page of that, are removed.

    Raises:
        InputError: the folder is that of a run.
    """
    if (Path(folder) / COMMAND_FILE).exists() or any(Path(folder).resolve() == run.resolve() for run, _ in parts):
        raise InputError(f"{folder} holds a run: name another folder for what several runs have.")
    if (Path(folder) / RESULTS_FILE).exists():
        # the tests and the page there are of the rows that are about to be replaced
        for file in [*_kept(folder, read_results(folder)), *comparison_files(folder), Path(folder) / REPORT_FILE]:
            file.unlink(missing_ok=True)
    for run, rows in parts:
        for source, target in zip(_kept(run, rows), _kept(folder, rows)):
            if source.is_file():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, target)
    write_results(folder, [row for _, rows in parts for row in rows], {})


def _kept(folder: str | Path, rows: Sequence[Row]) -> list[Path]:
    """Where a folder keeps the ranks and the curves of these rows; what a run kept none of is not there."""
    ranks = [ranks_file(folder, row.model, row.stage, row.seed) for row in rows]
    return ranks + [curves_file(folder, *of) for of in dict.fromkeys((row.model, row.seed) for row in rows)]


def _read(run: str | Path) -> tuple[Path, list[Row]]:
    """The folder of a run, and its rows of the models that are named behind a colon; all where none is."""
    folder, colon, models = str(run).rpartition(":")
    if not colon or Path(run).exists():
        return Path(run), read_results(run)
    rows, names = read_results(folder), models.split(",")
    for name in names:
        if all(row.model != name for row in rows):
            there = ", ".join(dict.fromkeys(row.model for row in rows)) or "none"
            raise InputError(f"{folder} has no model {name!r} but {there}.")
    return Path(folder), [row for row in rows if row.model in names]
