"""Which of two models is better: paired tests over the test users from the ranks that runs keep, and their table."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.reporting.layout import MISSING, latex, markdown, p_value, plain
from recbole_stream.reporting.ranks import read_ranks, row_metric, split_metric, user_means
from recbole_stream.reporting.results import Row
from recbole_stream.reporting.statistics import Paired, compare_paired, holm

__all__ = [
    "Comparison",
    "Entry",
    "comparison_csv",
    "comparison_files",
    "comparison_latex",
    "comparison_markdown",
    "comparison_text",
    "compare_entries",
    "entries_of",
    "reference_pairs",
    "stage_entry",
    "write_comparison",
]

COMPARISON_FILE = "comparison"
# identifies a test row; both models must have the same
_KEY = ["user", "target", "history_length"]
_NOTE = (
    "{users} test users{rows}; a metric is averaged over a model's seeds{of_a_user} first. The difference A - B comes with its 95% "
    "bootstrap interval; d_z is it in units of the standard deviation over users. Both p-values are two-sided and "
    "Holm-corrected over all lines of this table ({tests}), the interval belongs to one line alone. Wilcoxon's test "
    "leaves out users on whom both models do equally well. The tests are about other users, not about other trainings: "
    "how far those differ, the deviations over seeds say."
)
_BOLD = " Bold: both p-values are below 0.05."


@dataclass
class Entry:
    """A model in a comparison.

    Attributes:
        name: as the table shows it.
        seeds: of its trainings.
        ranks: what they kept, one frame a seed.
    """

    name: str
    seeds: list[int]
    ranks: list[pd.DataFrame]


@dataclass
class Comparison:
    """A line of the table: A against B by one metric.

    Attributes:
        a, b: names.
        metric: such as ``ndcg@10``.
        seeds_a, seeds_b: of the trainings.
        rows: test rows, at least as many as users.
        result: the tests over users.
        holm_bootstrap, holm_wilcoxon: the p-values, corrected over the whole table.
    """

    a: str
    b: str
    metric: str
    seeds_a: list[int]
    seeds_b: list[int]
    rows: int
    result: Paired
    holm_bootstrap: float = math.nan
    holm_wilcoxon: float = math.nan


def entries_of(folder: str | Path, rows: Sequence[Row]) -> dict[str, Entry]:
    """The models of a run, each with the stage that a training keeps, by name.

    Args:
        folder: of the run.
        rows: its results.

    Raises:
        InputError: a file of ranks is missing or torn.
    """
    models: dict[str, list[Row]] = {}
    for row in rows:
        if row.final:
            models.setdefault(row.model, []).append(row)
    return {name: _entry(folder, name, group) for name, group in models.items()}


def stage_entry(folder: str | Path, rows: Sequence[Row], name: str) -> Entry:
    """One model of a run by its name, as ``STREAMRec``, or one stage of it, as ``STREAMRec-PT``.

    Raises:
        InputError: the run has no such model, or its ranks are missing or torn.
    """
    for group in (
        [r for r in rows if r.model == name and r.final],
        [r for r in rows if f"{r.model}-{r.stage}" == name],
    ):
        if group:
            return _entry(folder, name, group)
    known = dict.fromkeys([row.model for row in rows] + [f"{row.model}-{row.stage}" for row in rows if row.stage])
    raise InputError(f"{folder} has no model {name!r} but {', '.join(known)}.")


def _entry(folder: str | Path, name: str, rows: Sequence[Row]) -> Entry:
    ranks = [read_ranks(folder, row.model, row.stage, row.seed) for row in rows]
    return Entry(name, [row.seed for row in rows], ranks)


def reference_pairs(models: Sequence[str], references: Sequence[str]) -> list[tuple[str, str]]:
    """Every model against every reference, each pair once: (model, reference)."""
    pairs: list[tuple[str, str]] = []
    for reference in references:
        pairs += [(model, reference) for model in models if model != reference and (reference, model) not in pairs]
    return pairs


def compare_entries(pairs: Sequence[tuple[Entry, Entry]], metrics: Sequence[str]) -> list[Comparison]:
    """Paired tests of all pairs by all metrics, one table.

    Args:
        pairs: (A, B).
        metrics: such as ``ndcg@10``.

    Returns:
        metric by metric, the pairs in their order.

    Raises:
        InputError: no such metric, ranks that are not known far enough down, or other test users.
    """
    comparisons = []
    for metric in metrics:
        name, cutoff = split_metric(metric)
        for a, b in pairs:
            key = _ordered(a.ranks[0])[_KEY]
            values = [_user_means(entry, metric, key, f"{a.name} and {b.name}") for entry in (a, b)]
            tests = compare_paired(*values)
            comparisons.append(Comparison(a.name, b.name, f"{name}@{cutoff}", a.seeds, b.seeds, len(key), tests))
    for test in ("bootstrap", "wilcoxon"):
        corrected = holm([getattr(comparison.result, f"p_{test}") for comparison in comparisons])
        for comparison, p in zip(comparisons, corrected):
            setattr(comparison, f"holm_{test}", float(p))
    return comparisons


def _ordered(ranks: pd.DataFrame) -> pd.DataFrame:
    return ranks.sort_values(_KEY, kind="stable", ignore_index=True)


def _user_means(entry: Entry, metric: str, key: pd.DataFrame, names: str) -> np.ndarray:
    """The metric of each user of the test rows ``key``, averaged over seeds and over the user's rows, [U]."""
    values = []
    for ranks in entry.ranks:
        depth, ranks = ranks.attrs["depth"], _ordered(ranks)
        if not np.array_equal(ranks[_KEY].to_numpy(), key.to_numpy()):
            raise InputError(
                f"{names} were not tested on the same users and items: compare runs on the same data, filters and split."
            )
        values.append(row_metric(ranks["rank"], metric, depth))
    return user_means(np.mean(values, axis=0), key["user"]).to_numpy()


# -- the table ---------------------------------------------------------------


def comparison_markdown(comparisons: Sequence[Comparison]) -> str:
    """A Markdown table with a paragraph that says what was tested; significant differences are bold."""

    def mark(text: str, significant: bool) -> str:
        return f"**{text}**" if significant else text

    return markdown(*_cells(comparisons, mark)) + "\n" + _note(comparisons) + _BOLD + "\n"


def comparison_latex(comparisons: Sequence[Comparison]) -> str:
    """The same table for LaTeX (package booktabs), the paragraph as a comment."""

    def mark(text: str, significant: bool) -> str:
        return rf"\textbf{{{text}}}" if significant else text

    headings, lines, names = _cells(comparisons, mark)
    lines = [line[:names] + [_latex_number(cell) for cell in line[names:]] for line in lines]
    return f"% {_note(comparisons)}{_BOLD}\n" + latex(headings, lines, names)


def comparison_text(comparisons: Sequence[Comparison]) -> str:
    """The same table for the terminal."""
    table = plain(*_cells(comparisons, lambda text, significant: text))
    return table + "\n\n" + textwrap.fill(_note(comparisons), 110)


def comparison_csv(comparisons: Sequence[Comparison]) -> str:
    """The same figures unrounded, with a heading line; seeds are separated by blanks."""
    records = [
        {
            "a": c.a,
            "b": c.b,
            "metric": c.metric,
            "seeds_a": " ".join(map(str, c.seeds_a)),
            "seeds_b": " ".join(map(str, c.seeds_b)),
            "rows": c.rows,
            **asdict(c.result),
            "holm_bootstrap": c.holm_bootstrap,
            "holm_wilcoxon": c.holm_wilcoxon,
        }
        for c in comparisons
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def write_comparison(folder: str | Path, comparisons: Sequence[Comparison]) -> None:
    """Write ``comparison.md``, ``comparison.tex`` and ``comparison.csv`` into a folder that exists."""
    for path, table in zip(comparison_files(folder), (comparison_markdown, comparison_latex, comparison_csv)):
        write_text(path, table(comparisons))


def comparison_files(folder: str | Path) -> list[Path]:
    """Where a folder keeps its paired tests: Markdown, LaTeX, CSV."""
    return [Path(folder) / f"{COMPARISON_FILE}.{ending}" for ending in ("md", "tex", "csv")]


def _note(comparisons: Sequence[Comparison]) -> str:
    users, rows = (
        {f"{count:,}" for count in counts} for counts in zip(*((c.result.users, c.rows) for c in comparisons))
    )
    several = {"rows": "", "of_a_user": ""}
    if any(c.rows > c.result.users for c in comparisons):
        several = {"rows": f" with {', '.join(sorted(rows))} rows", "of_a_user": " and a user's rows"}
    return _NOTE.format(users=", ".join(sorted(users)), tests=len(comparisons), **several)


def _cells(
    comparisons: Sequence[Comparison], mark: Callable[[str, bool], str]
) -> tuple[list[str], list[list[str]], int]:
    """Headings, cells, and how many columns hold names; ``mark`` makes a significant difference stand out."""
    lines = []
    for c in comparisons:
        r = c.result
        significant = max(c.holm_bootstrap, c.holm_wilcoxon) < 0.05
        lines.append(
            [
                c.a,
                c.b,
                c.metric,
                f"{r.mean_a:.4f}",
                f"{r.mean_b:.4f}",
                mark(f"{r.difference:+.4f}", significant),
                MISSING if math.isnan(r.relative) else f"{r.relative:+.1%}",
                f"[{r.low:+.4f}, {r.high:+.4f}]",
                f"{r.effect:+.3f}",
                p_value(c.holm_bootstrap),
                p_value(c.holm_wilcoxon),
            ]
        )
    means = ["A mean", "B mean", "difference", "relative", "95% interval", "d_z"]
    return ["A", "B", "metric", *means, "p bootstrap", "p Wilcoxon"], lines, 3


def _latex_number(cell: str) -> str:
    """A figure as LaTeX sets it: outside of formulas it makes a hyphen of "-", and in its oldest encoding an inverted
    exclamation mark of "<"."""
    return cell if cell == MISSING else cell.replace("%", r"\%").replace("-", "$-$").replace("<", "$<$")
