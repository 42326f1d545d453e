"""How a table is written: Markdown, LaTeX (booktabs), and aligned plain text.

Each function takes headings, cells and how many of the first columns hold names: those are set left and escaped, the
others are figures as they are to be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

__all__ = ["MISSING", "latex", "markdown", "number", "p_value", "plain"]

MISSING = "-"
_SPECIAL: dict[str, Any] = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def number(value: float | None, form: str) -> str:
    """``value`` in a format of ``format``, or a dash."""
    return MISSING if value is None else format(value, form)


def p_value(p: float) -> str:
    """A p-value with three decimal places; a smaller one than they can show is "<0.001"."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def markdown(headings: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """A Markdown table."""
    escaped = [[cell.replace("|", r"\|") for cell in line[:names]] + list(line[names:]) for line in lines]
    return _tabulate(headings, escaped, names, "pipe") + "\n"


def plain(headings: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """Aligned columns, for the terminal."""
    # headings are broken into one word a line, so that a column is no wider than its figures
    return _tabulate([heading.replace(" ", "\n") for heading in headings], lines, names, "simple")


def latex(headings: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    """A tabular for the package booktabs; headings are escaped as well."""
    rows = [[_escape(cell) for cell in line[:names]] + list(line[names:]) for line in lines]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(headings) - names)}}}",
            r"\toprule",
            " & ".join(map(_escape, headings)) + r" \\",
            r"\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _escape(text: str) -> str:
    return text.translate(str.maketrans(_SPECIAL))


def _tabulate(headings: Sequence[str], lines: Sequence[Sequence[str]], names: int, form: str) -> str:
    align = ["left"] * names + ["right"] * (len(headings) - names)
    # tabulate would format numbers again
    return tabulate(lines, headings, tablefmt=form, colalign=align, disable_numparse=True)
