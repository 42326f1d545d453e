"""``python -m recbole_stream.reporting``: paired tests, tables and the page of stored runs, without any model."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NoReturn

from recbole_stream.errors import InputError
from recbole_stream.reporting.comparison import (
    Entry,
    compare_entries,
    comparison_text,
    stage_entry,
    write_comparison,
)
from recbole_stream.reporting.gather import gather, read_runs
from recbole_stream.reporting.metrics import compared_metrics
from recbole_stream.reporting.ranks import split_metric
from recbole_stream.reporting.report import write_report
from recbole_stream.reporting.results import Row, read_results
from recbole_stream.reporting.tables import text_table, write_tables

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit status: 0 or 2 (bad input)."""
    try:
        options = _parser().parse_args(arguments)
        options.action(options)
    except InputError as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """Bad input is one sentence here too."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:1].upper()}{message[1:]}: {self.prog} --help says what there is.")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m recbole_stream.reporting", description="Work with stored runs.")
    commands = parser.add_subparsers(dest="command", required=True)
    compare = commands.add_parser(
        "compare",
        help="paired tests of two runs",
        description="Paired tests over the test users of two runs, from the ranks they keep; no model is loaded.",
    )
    compare.add_argument("run_a", metavar="RUN_A", help="folder of a run")
    compare.add_argument("run_b", metavar="RUN_B", help="folder of another run on the same data, or of the same")
    compare.add_argument(
        "--metric",
        help="recall, hit, ndcg, mrr, map or precision at a cut-off, several separated by commas (default: the one that "
        "chose the epochs of RUN_A)",
    )
    compare.add_argument(
        "--models",
        default="",
        help="models or stages, separated by commas: TIGER compares TIGER in both runs, STREAMRec-PT:TIGER a stage of "
        "RUN_A with a model of RUN_B (default: models that both have, or where they share none all of RUN_A with all "
        "of RUN_B)",
    )
    compare.add_argument("--output", metavar="FOLDER", help="write comparison.md, .tex and .csv into this folder")
    compare.set_defaults(action=_compare)
    table = commands.add_parser(
        "table",
        help="one table of several runs",
        description="One table of the rows of stored runs; what several runs have of a model with different seeds becomes "
        "one line, mean ± standard deviation. The folder of --output is itself one for compare and report.",
    )
    table.add_argument(
        "runs", metavar="RUN", nargs="+", help="folder of a run; RUN:STREAMRec,SASRec takes these models of it alone"
    )
    table.add_argument(
        "--output",
        metavar="FOLDER",
        help="write table.md, .tex and .csv into this folder, and what the runs kept of results, ranks and curves",
    )
    table.set_defaults(action=_table)
    report = commands.add_parser(
        "report",
        help="write the page of a run again",
        description="Write report.html from what the folder of a run holds; no model is loaded.",
    )
    report.add_argument("run", metavar="RUN", help="folder of a run")
    report.set_defaults(action=_report)
    return parser


def _compare(options: argparse.Namespace) -> None:
    metrics = None if options.metric is None else _words(options.metric)
    if metrics == []:
        raise InputError("--metric names none: give one such as --metric=ndcg@10.")
    for metric in metrics or []:
        split_metric(metric)
    folders = Path(options.run_a), Path(options.run_b)
    if folders[0].resolve() == folders[1].resolve() and not options.models:
        raise InputError("A run equals itself: name pairs of its models, such as --models=STREAMRec:TIGER.")
    rows = read_results(folders[0]), read_results(folders[1])
    pairs = [tuple(stage_entry(*side) for side in zip(folders, rows, names)) for names in _pairs(options.models, *rows)]
    metrics = metrics or compared_metrics(rows[0])[:1] or ["ndcg@10"]
    comparisons = compare_entries([_told_apart(a, b, *folders) for a, b in pairs], metrics)
    print(f"A: {folders[0]}\nB: {folders[1]}\n\n{comparison_text(comparisons)}")
    if options.output:
        write_comparison(_folder(options.output), comparisons)
        print(f"\nWritten to {options.output}")


def _table(options: argparse.Namespace) -> None:
    parts = read_runs(options.runs)
    rows = [row for _, own in parts for row in own]
    print(text_table(rows))
    if options.output:
        gather(parts, _folder(options.output))
        write_tables(options.output, rows)
        print(f"\nWritten to {options.output}")


def _report(options: argparse.Namespace) -> None:
    print(f"Written to {write_report(options.run)}")


def _folder(name: str) -> Path:
    """The folder of that name, made where it is missing."""
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"--output={name} cannot be made ({fault.strerror}): name another folder.") from None
    return Path(name)


def _pairs(models: str, rows_a: Sequence[Row], rows_b: Sequence[Row]) -> list[tuple[str, str]]:
    """Names of what is compared: (in run A, in run B)."""
    if models:
        pairs = [name.split(":") for name in _words(models)]
        for pair in pairs:
            if len(pair) > 2 or not all(pair):
                raise InputError(f"--models names {':'.join(pair)!r}, but must be MODEL or MODEL_OF_A:MODEL_OF_B.")
        return [(pair[0], pair[-1]) for pair in pairs]
    names_a, names_b = (list(dict.fromkeys(row.model for row in rows)) for rows in (rows_a, rows_b))
    shared = [(name, name) for name in names_a if name in names_b]
    return shared or list(product(names_a, names_b))


def _told_apart(a: Entry, b: Entry, folder_a: Path, folder_b: Path) -> tuple[Entry, Entry]:
    """The same model of two runs bears their names."""
    if a.name != b.name:
        return a, b
    names = folder_a.name, folder_b.name
    if names[0] == names[1]:
        names = str(folder_a), str(folder_b)
    first, second = (Entry(f"{entry.name} ({name})", entry.seeds, entry.ranks) for entry, name in zip((a, b), names))
    return first, second


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
