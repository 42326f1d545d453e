"""Several runs in one folder, as if one command had made them: seeds that were trained apart, models that came later."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from recbole_stream.benchmark.curves import curves_file
from recbole_stream.benchmark.ranks import ranks_file
from recbole_stream.benchmark.results import COMMAND_FILE, Row, read_results, write_results
from recbole_stream.errors import InputError

__all__ = ["gather", "rows_of"]


def rows_of(runs: Sequence[str | Path]) -> list[Row]:
    """The rows of several runs, run after run.

    Args:
        runs: folders, or ``FOLDER:MODEL,MODEL`` for some models of a run.

    Raises:
        InputError: a run has no results or not the model that is named, none has any rows yet, or two have the same
            model with the same seed.
    """
    rows: list[Row] = []
    for run in runs:
        known = {(row.model, row.stage, row.dataset, row.seed) for row in rows}
        folder, own = _of_run(run)
        for row in own:
            if (row.model, row.stage, row.dataset, row.seed) in known:
                raise InputError(
                    f"{folder} has {row.model} with seed {row.seed} as a run before it: name the models that are meant, "
                    f"as in {folder}:{own[0].model}, or compare such runs instead."
                )
            rows.append(row)
    if not rows:
        raise InputError(f"{runs[0]} has no results yet: let the run finish a model first.")
    return rows


def gather(runs: Sequence[str | Path], folder: str | Path) -> None:
    """Put the results of several runs, and what they kept of ranks and curves, into a folder.

    All that works on a run without its models works on that folder: tests, tables, the page.

    Args:
        runs: see :func:`rows_of`.
        folder: exists; what it gathered before is written over.

    Raises:
        InputError: see :func:`rows_of`; or the folder is that of a run.
    """
    rows = rows_of(runs)
    parts = [_of_run(run) for run in runs]
    if (Path(folder) / COMMAND_FILE).exists() or any(Path(folder).resolve() == run.resolve() for run, _ in parts):
        raise InputError(f"{folder} holds a run: name another folder for what several runs have.")
    for run, own in parts:
        for row in own:
            ranks = (row.model, row.stage, row.seed)
            for source, target in (
                (ranks_file(run, *ranks), ranks_file(folder, *ranks)),
                (curves_file(run, row.model, row.seed), curves_file(folder, row.model, row.seed)),
            ):
                target.unlink(missing_ok=True)
                if source.is_file():
                    target.parent.mkdir(exist_ok=True)
                    shutil.copyfile(source, target)
    write_results(folder, rows, {})


def _of_run(run: str | Path) -> tuple[Path, list[Row]]:
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
