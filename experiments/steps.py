"""``python -m experiments.steps RUN RUN ... [--output=steps]``: ReaRec's accuracy against its latent steps.

Takes runs of run_recbole.py that differ in ``rearec_steps`` (0 to 4) and, as a control that computes as much without
feeding anything back, runs of SASRec that differ in ``n_layers``. Such runs are, for STEPS from 0 to 4:

    python run_recbole.py --model=ReaRec --rearec=erl --rearec_steps=STEPS --output_dir=erl-STEPS ...
    python run_recbole.py --model=SASRec --loss_type=CE --n_layers=LAYERS --output_dir=layers-LAYERS ...

The table goes into ``steps.csv``, its plot into ``steps.png``. Points of several seeds are averaged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from recbole_stream.errors import InputError
from recbole_stream.files import whole_file, write_text
from recbole_stream.reporting.plots import plot_scaling
from recbole_stream.reporting.results import Row, read_results

__all__ = ["against_steps", "main"]

METRIC = "ndcg@10"


def against_steps(rows: Sequence[Row], split: str = "valid") -> pd.DataFrame:
    """One line a point: axis, series, amount (of steps, or of layers more than the fewest), mean, std over seeds.

    Args:
        rows: of ReaRec and SASRec; those of other models are left out.
        split: ``valid`` or ``test``.

    Raises:
        InputError: there is no row of ReaRec.
    """
    points = []
    for row in rows:
        keys = row.run["configuration"] if row.model in ("ReaRec", "SASRec") else {}
        value = getattr(row, split).get(METRIC)
        if row.model == "ReaRec":
            points.append((f"ReaRec, {keys['rearec']}", int(keys["rearec_steps"]), value))
        elif row.model == "SASRec":
            points.append(("SASRec, layers instead", int(keys["n_layers"]), value))
    table = pd.DataFrame(points, columns=["series", "amount", "value"])
    if not table["series"].str.startswith("ReaRec").any():
        raise InputError("There is no row of ReaRec: name folders of runs with --model=ReaRec and some rearec_steps.")
    layers = table["series"].str.startswith("SASRec")
    table.loc[layers, "amount"] -= table.loc[layers, "amount"].min()
    grouped = table.groupby(["series", "amount"], sort=True)["value"].agg(["mean", "std"]).reset_index()
    return grouped.assign(axis="latent steps, or layers more")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table and the plot; returns the exit status: 0, or 2 for runs that do not hold what it needs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.steps", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument("--output", type=Path, default=Path("steps"), help="files to write, without their endings")
    given = parser.parse_args(arguments)
    try:
        table = against_steps([row for run in given.runs for row in read_results(run)])
    except InputError as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    write_text(given.output.with_suffix(".csv"), table.to_csv(index=False))
    with whole_file(given.output.with_suffix(".png")) as file:
        plot_scaling(table, METRIC, split="validation").savefig(file, dpi=150, format="png")
    print(table[["series", "amount", "mean", "std"]].to_markdown(index=False, floatfmt=".4f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
