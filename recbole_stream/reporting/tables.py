"""Result rows as a table: Markdown, LaTeX, CSV, and plain text for the terminal.

The columns are the metrics that the runs were asked for, on the test split, and on the validation split the one that
chose the epochs; see :func:`recbole_stream.reporting.metrics.shown_metrics`. Rows that differ in nothing but their seed become one
line, mean ± sample standard deviation, and times and parameters their mean.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_stream.files import write_text
from recbole_stream.reporting.layout import MISSING, latex, markdown, number, plain
from recbole_stream.reporting.metrics import metric_title, shown_metrics, smaller_is_better
from recbole_stream.reporting.results import Row
from recbole_stream.reporting.statistics import mean_and_deviation

__all__ = [
    "Line",
    "csv_table",
    "heading",
    "latex_table",
    "lines_of",
    "markdown_table",
    "place_among",
    "text_table",
    "write_tables",
]

COSTS = ("train s", "rank s/1000 users", "parameters")


@dataclass
class Line:
    """A line of the table: the rows of a model's stage, one a seed; ``kept`` marks it among other stages."""

    model: str
    stage: str
    dataset: str
    rows: list[Row]
    kept: bool = False

    @property
    def shown(self) -> str:
        """The stage as printed."""
        return self.stage + (" (final)" if self.kept else "")

    def metric(self, split: str, name: str) -> tuple[float, float | None] | None:
        """Mean and deviation over seeds; None where a seed has no value."""
        values = [_metric(row, split, name) for row in self.rows]
        return None if None in values else mean_and_deviation(values)

    def mean(self, name: str) -> float | None:
        """The mean of a field of the rows; None where a seed has none."""
        values = [getattr(row, name) for row in self.rows]
        return None if None in values else mean_and_deviation(values)[0]


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table, in the order of the rows, the best of each metric bold.

    Where a model has several stages, the one whose checkpoint is kept is marked "(final)"; where seeds keep different
    ones, a line "final" takes from each seed the one it keeps. A metric that was not measured is "-". Rows of several
    data sets get a column that names them, and each data set a best of its own. Equal as printed is equally good.
    """

    def mark(text: str, place: int) -> str:
        return f"**{text}**" if place == 0 else text

    return markdown(*_cells(rows, mark, "±"))


def latex_table(rows: Sequence[Row]) -> str:
    """The same table for LaTeX (package booktabs), the second best underlined as well."""
    marks = {0: r"\textbf{%s}", 1: r"\underline{%s}"}
    return latex(*_cells(rows, lambda text, place: marks.get(place, "%s") % text, r"$\pm$"))


def text_table(rows: Sequence[Row]) -> str:
    """The table of :func:`markdown_table` in aligned columns without bold, for the terminal."""
    return plain(*_cells(rows, lambda text, place: text, "±"))


def csv_table(rows: Sequence[Row]) -> str:
    """The same figures unrounded, with a heading line; what was not measured is empty.

    Every row has a line. Where there are several seeds, lines with the seed "mean" and "deviation" follow.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = shown_metrics(rows)
    writer.writerow(
        ["model", "stage", "final", "dataset", "seed"]
        + [f"{split}_{name}" for split, name in metrics]
        + ["train_seconds", "rank_seconds_per_1000_users", "parameters"]
    )
    for row in rows:
        writer.writerow(
            [row.model, row.stage, row.final, row.dataset, row.seed]
            + [_metric(row, split, name) for split, name in metrics]
            + [row.train_seconds, row.rank_seconds_per_1000_users, row.parameters]
        )
    for line in lines_of(rows):
        if len(line.rows) > 1:
            both = [line.metric(split, name) or (None, None) for split, name in metrics]
            costs = [line.mean(name) for name in ("train_seconds", "rank_seconds_per_1000_users", "parameters")]
            names = [line.model, line.stage, all(row.final for row in line.rows), line.dataset]
            writer.writerow([*names, "mean", *(mean for mean, _ in both), *costs])
            writer.writerow([*names, "deviation", *(deviation for _, deviation in both), None, None, None])
    return text.getvalue()


def write_tables(folder: str | Path, rows: Sequence[Row]) -> None:
    """Write ``table.md``, ``table.tex`` and ``table.csv`` into a folder that exists."""
    for ending, table in (("md", markdown_table), ("tex", latex_table), ("csv", csv_table)):
        write_text(Path(folder) / f"table.{ending}", table(rows))


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """Rows of one model and stage together, each model's lines in the order of its first row.

    Where seeds keep different stages, one more line, "final", takes from each seed the stage that it keeps.
    """
    trainings: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        trainings.setdefault((row.model, row.dataset), []).append(row)
    lines = []
    for (model, dataset), members in trainings.items():
        stages: dict[str, list[Row]] = {}
        for row in members:
            stages.setdefault(row.stage, []).append(row)
        kept = {row.stage for row in members if row.final}
        for stage, group in stages.items():
            lines.append(Line(model, stage, dataset, group, len(stages) > 1 and kept == {stage}))
        if len(kept) > 1:
            lines.append(Line(model, "final", dataset, [row for row in members if row.final]))
    return lines


def _cells(
    rows: Sequence[Row], mark: Callable[[str, int], str], plus_minus: str
) -> tuple[list[str], list[list[str]], int]:
    """Headings, one list of cells per line, and how many columns hold names.

    ``mark`` is applied to each metric and its place among the different values of its data set (0 is the best).
    """
    lines, columns = lines_of(rows), shown_metrics(rows)
    several = len({line.dataset for line in lines}) > 1
    cells = []
    for line in lines:
        names = [line.model, line.shown or MISSING, *([line.dataset] if several else [])]
        metrics = []
        for split, name in columns:
            peers = [peer.metric(split, name) for peer in lines if peer.dataset == line.dataset]
            place = place_among(line.metric(split, name), peers, smaller_is_better(name))
            metrics.append(_marked(line.metric(split, name), place, mark, plus_minus))
        costs = [
            number(line.mean("train_seconds"), ".1f"),
            number(line.mean("rank_seconds_per_1000_users"), ".2f"),
            number(line.mean("parameters"), ",.0f"),
        ]
        cells.append([*names, *metrics, *costs, ", ".join(str(row.seed) for row in line.rows)])
    seeds = "seeds" if any(len(line.rows) > 1 for line in lines) else "seed"
    titles = [heading(split, name) for split, name in columns]
    headings = ["Model", "Stage", *(["Dataset"] if several else []), *titles, *COSTS, seeds]
    return headings, cells, 3 if several else 2


def heading(split: str, metric: str) -> str:
    """The heading of a column: ("valid", "ndcg@10") -> "valid NDCG@10"."""
    return metric_title(metric) if split == "test" else f"{split} {metric_title(metric)}"


def place_among(
    value: tuple[float, float | None] | None, peers: Sequence[tuple[float, float | None] | None], smaller: bool
) -> int | None:
    """The place of a mean among all means of a column: 0 is the best, equal as printed is equally good.

    Args:
        value: mean and deviation.
        peers: those of all lines, this one included.
        smaller: whether smaller is better.

    Returns:
        None without a value, and without another one to compare with.
    """
    printed = [number(peer[0], ".4f") for peer in peers if peer is not None]
    if value is None or len(printed) < 2:
        return None
    return sorted(set(printed), key=float, reverse=not smaller).index(number(value[0], ".4f"))


def _metric(row: Row, split: str, name: str) -> float | None:
    value = (row.test if split == "test" else row.valid).get(name)
    return None if value is None or math.isnan(value) else value


def _marked(
    value: tuple[float, float | None] | None, place: int | None, mark: Callable[[str, int], str], plus_minus: str
) -> str:
    """A metric as printed, marked by its place where it has one."""
    if value is None:
        return MISSING
    mean, deviation = value
    text = number(mean, ".4f")
    if place is not None:
        text = mark(text, place)
    return text if deviation is None else f"{text} {plus_minus} {deviation:.4f}"
