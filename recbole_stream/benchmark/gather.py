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

    Raises:
        InputError: a run has no results, none has any rows yet, or two have the same model with the same seed.
    """
    rows: list[Row] = []
    for run in runs:
        known = {(row.model, row.stage, row.dataset, row.seed) for row in rows}
        for row in read_results(run):
            if (row.model, row.stage, row.dataset, row.seed) in known:
                raise InputError(f"{run} has {row.model} with seed {row.seed} as a run before it: compare such runs instead.")
            rows.append(row)
    if not rows:
        raise InputError(f"{runs[0]} has no results yet: let the run finish a model first.")
    return rows


def gather(runs: Sequence[str | Path], folder: str | Path) -> None:
    """Put the results of several runs, and what they kept of ranks and curves, into a folder.

    All that works on a run without its models works on that folder: tests, tables, the page.

    Args:
        runs: their folders, see :func:`rows_of`.
        folder: exists; what it gathered before is written over.

    Raises:
        InputError: see :func:`rows_of`; or the folder is that of a run.
    """
    if (Path(folder) / COMMAND_FILE).exists() or any(Path(folder).resolve() == Path(run).resolve() for run in runs):
        raise InputError(f"{folder} holds a run: name another folder for what several runs have.")
    rows = rows_of(runs)
    for run in runs:
        for row in read_results(run):
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
