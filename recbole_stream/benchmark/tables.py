"""Result rows as a table: Markdown, LaTeX, CSV, and plain text for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Callable, Sequence

from tabulate import tabulate

from recbole_stream.benchmark.results import Row

__all__ = ["markdown_table", "latex_table", "csv_table", "text_table"]

# heading -> (split, RecBole's name of the metric); more is better in all of them
METRICS = {
    "Recall@5": ("test", "recall@5"),
    "Recall@10": ("test", "recall@10"),
    "NDCG@5": ("test", "ndcg@5"),
    "NDCG@10": ("test", "ndcg@10"),
    "valid NDCG@10": ("valid", "ndcg@10"),
}
COSTS = ("train s", "rank s/1000 users", "parameters", "seed")
MISSING = "-"


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table, one line per row in the given order, the best of each metric bold.

    The metrics are those of the test split but for "valid NDCG@10". Where a model has
    several stages, the one whose checkpoint is kept is marked "(final)". A metric
    that was not measured is "-". Rows of several data sets get a column that names
    them, and each data set a best of its own. Equal as printed is equally good.
    """

    def mark(text: str, place: int) -> str:
        return f"**{text}**" if place == 0 else text

    headings, lines = _cells(rows, lambda text: text.replace("|", r"\|"), mark)
    return _tabulate(headings, lines, "pipe") + "\n"


def latex_table(rows: Sequence[Row]) -> str:
    """The same table for LaTeX (package booktabs), the second best underlined as well."""

    def mark(text: str, place: int) -> str:
        return {0: rf"\textbf{{{text}}}", 1: rf"\underline{{{text}}}"}.get(place, text)

    headings, lines = _cells(rows, _latex_escape, mark)
    names = headings.index("Recall@5")
    body = [" & ".join(line) + r" \\" for line in lines]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(headings) - names)}}}",
            r"\toprule",
            " & ".join(headings) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def csv_table(rows: Sequence[Row]) -> str:
    """The same figures unrounded, with a heading line; what was not measured is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    metrics = list(METRICS.values())
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
    return text.getvalue()


def text_table(rows: Sequence[Row]) -> str:
    """The table of :func:`markdown_table` in aligned columns without bold, for the terminal."""
    headings, lines = _cells(rows, lambda text: text, lambda text, place: text)
    # one word a line: the columns become as narrow as their figures
    return _tabulate([heading.replace(" ", "\n") for heading in headings], lines, "simple")


def _cells(
    rows: Sequence[Row], escape: Callable[[str], str], mark: Callable[[str, int], str]
) -> tuple[list[str], list[list[str]]]:
    """Headings and one list of cells per row.

    ``escape`` is applied to the names, ``mark`` to each metric and its place among
    the different values of its data set (0 is the best).
    """
    several = len({row.dataset for row in rows}) > 1
    stages = Counter(_training(row) for row in rows)
    lines = []
    for row in rows:
        stage = row.stage or MISSING
        if row.final and stages[_training(row)] > 1:
            stage += " (final)"
        line = [escape(row.model), escape(stage)]
        if several:
            line.append(escape(row.dataset))
        for split, name in METRICS.values():
            peers = [_metric(r, split, name) for r in rows if r.dataset == row.dataset]
            line.append(_marked(_metric(row, split, name), peers, mark))
        line += [
            _number(row.train_seconds, ".1f"),
            _number(row.rank_seconds_per_1000_users, ".2f"),
            _number(row.parameters, ",d"),
            str(row.seed),
        ]
        lines.append(line)
    return ["Model", "Stage", *(["Dataset"] if several else []), *METRICS, *COSTS], lines


def _training(row: Row) -> tuple[str, str, int]:
    """What the stages of one training have in common."""
    return row.model, row.dataset, row.seed


def _metric(row: Row, split: str, name: str) -> float | None:
    value = (row.test if split == "test" else row.valid).get(name)
    return None if value is None or math.isnan(value) else value


def _marked(
    value: float | None, peers: Sequence[float | None], mark: Callable[[str, int], str]
) -> str:
    """A metric as printed, marked by its place; with nothing to compare with, no mark."""
    text = _number(value, ".4f")
    printed = [_number(peer, ".4f") for peer in peers if peer is not None]
    if value is None or len(printed) < 2:
        return text
    return mark(text, sorted(set(printed), key=float, reverse=True).index(text))


def _number(value: float | None, form: str) -> str:
    return MISSING if value is None else format(value, form)


def _latex_escape(text: str) -> str:
    special = {c: rf"\{c}" for c in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return text.translate(str.maketrans(special))


def _tabulate(headings: list[str], lines: list[list[str]], form: str) -> str:
    names = headings.index("Recall@5")
    align = ["left"] * names + ["right"] * (len(headings) - names)
    # numbers are already written as they are to be shown
    return tabulate(lines, headings, tablefmt=form, colalign=align, disable_numparse=True)
