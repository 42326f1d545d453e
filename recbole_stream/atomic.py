"""Atomic files (RecBole's ``.inter``, ``.item``, ..) as every part of the project reads them.

A line ends at a line feed and a cell at the separator. A cell that is in quotes as a whole is read without them (a
quote inside is written twice); any other quote is a letter. Only an empty cell is missing: ``NA`` and ``null`` are
names like others, except where a number is expected.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pandas as pd

from recbole_stream.errors import InputError

__all__ = ["MISSING", "Numbers", "Rows", "parse_numbers", "read_header", "read_rows", "read_table", "unquoted"]

# what pandas reads as a missing number unless told otherwise
MISSING = frozenset(
    ["#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL"]
    + ["NaN", "None", "n/a", "nan", "null"]
)

_CHUNK = 10_000  # lines held at once


@dataclass(frozen=True)
class Rows:
    """Some rows of a file.

    Attributes:
        lines: their numbers in the file, from 1 [n].
        text: the lines, without their ends [n].
        cells: column -> its cells [n], "" where there is none.
    """

    lines: np.ndarray
    text: Sequence[str]
    cells: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Numbers:
    """What cells say as numbers.

    Attributes:
        values: [n] in float64, ISO dates in seconds since 1970 (UTC where they name no zone), NaN for the others.
        empty: which cells are empty, or hold a word of ``MISSING`` [n].
        dates: which are ISO dates [n].
        words: which are neither number nor date [n].
    """

    values: np.ndarray
    empty: np.ndarray
    dates: np.ndarray
    words: np.ndarray


def unquoted(cell: str) -> str:
    """``"a ""b"" c"`` -> ``a "b" c``; what is not in quotes as a whole, such as ``"a`` or ``"a" b``, stays."""
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"':
        return cell
    inside = cell[1:-1]
    return cell if '"' in inside.replace('""', "") else inside.replace('""', '"')


def read_header(path: str | Path, separator: str = "\t", encoding: str = "utf-8") -> list[str]:
    """The cells of the first line, ``name:type`` each.

    Raises:
        InputError: the file is in another encoding.
    """
    with _opened(path, encoding) as file:
        return _cells(file.readline(), separator)


def read_rows(
    path: str | Path, columns: Sequence[str], separator: str = "\t", encoding: str = "utf-8"
) -> Iterator[Rows]:
    """The rows below the header, some at a time; blank lines are left out.

    Args:
        path: the file.
        columns: those to read, by name or as ``name:type``.
        separator: between cells.
        encoding: of the file.

    Raises:
        InputError: a row longer than the header, a quoted cell that goes on in the next line, another encoding.
    """
    with _opened(path, encoding) as file:
        header = _cells(file.readline(), separator)
        names = {name: place for place, cell in enumerate(header) for name in (cell.partition(":")[0], cell)}
        places = {column: names[column] for column in columns}
        first = 2
        while text := [line.rstrip("\r\n") for line in islice(file, _CHUNK)]:
            lines = np.arange(first, first + len(text))
            first += len(text)
            if "" in text:
                kept = [place for place, line in enumerate(text) if line]
                lines, text = lines[kept], [text[place] for place in kept]
            table = [line.split(separator) for line in text]
            _check_widths(table, len(header), lines, path)
            quoted = any('"' in line for line in text)
            cells = {}
            for column, place in places.items():
                taken = [row[place] for row in table]
                cells[column] = list(map(unquoted, taken)) if quoted else taken
            yield Rows(lines, text, cells)


def _check_widths(table: list[list[str]], width: int, lines: np.ndarray, path: str | Path) -> None:
    """Give each row as many cells as the header has; only empty ones may be missing or too many."""
    for place in np.flatnonzero(np.fromiter(map(len, table), int, len(table)) != width):
        row = table[place]
        if any(row[width:]):
            raise InputError(
                f"Line {lines[place]} of {path} has {len(row)} columns where the header has {width}: "
                "take the separators out of its texts."
            )
        if len(row) < width and row[-1].startswith('"') and unquoted(row[-1]) == row[-1]:
            raise InputError(
                f"Line {lines[place]} of {path} opens a quote in column {len(row)} that does not end on its line: "
                "write each cell on one line, or take the quote away."
            )
        row += [""] * (width - len(row))


def read_table(
    path: str | Path, kinds: Mapping[str, type], separator: str = "\t", encoding: str = "utf-8"
) -> pd.DataFrame:
    """Columns of a file as RecBole wants them: strings, missing where empty, and float64.

    Args:
        path: the file.
        kinds: ``name:type`` as in the header -> str or a float type.
        separator: between cells.
        encoding: of the file.

    Raises:
        InputError: a number that is none; and those of :func:`read_rows`.
    """
    columns: dict[str, list[Any]] = {column: [] for column in kinds}
    for rows in read_rows(path, list(kinds), separator, encoding):
        for column, kind in kinds.items():
            cells = rows.cells[column]
            if kind is str:
                columns[column].append(pd.Series(cells, dtype=str))
                continue
            numbers = parse_numbers(cells)
            if numbers.words.any():
                place = int(numbers.words.argmax())
                raise InputError(
                    f"Line {rows.lines[place]} of {path} has {cells[place]!r} as {column.partition(':')[0]}: write a "
                    "number, or leave it empty."
                )
            columns[column].append(pd.Series(numbers.values))
    frame = pd.DataFrame(
        {
            column: pd.concat(parts, ignore_index=True) if parts else pd.Series(dtype=kinds[column])
            for column, parts in columns.items()
        }
    )
    for column, kind in kinds.items():
        if kind is str:
            frame[column] = frame[column].mask(frame[column] == "")
    return frame


def parse_numbers(cells: Sequence[str]) -> Numbers:
    """Cells [n] as numbers; see :class:`Numbers`."""
    none = np.zeros(len(cells), bool)
    try:
        values = np.array(cells, dtype=str).astype(np.float64)
        return Numbers(values, np.isnan(values), none, np.isinf(values))
    except ValueError:  # some is no number: find out which
        pass
    texts = pd.Series(cells, dtype=object)
    empty = texts.str.strip().isin({"", *MISSING}).to_numpy(bool)
    values = pd.to_numeric(texts.mask(empty), errors="coerce").to_numpy(np.float64, copy=True)
    values[np.isinf(values)] = np.nan
    dates = np.isnan(values) & texts.str.match(r"\s*\d{4}[-/]\d").to_numpy(bool)
    if dates.any():
        # many databases write "2019-10-01 00:00:00 UTC"
        iso = texts[dates].str.replace(r"\s*UTC\s*$", "Z", regex=True).str.strip()
        moments = pd.to_datetime(iso, format="ISO8601", utc=True, errors="coerce")
        values[dates] = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        dates &= ~np.isnan(values)
    return Numbers(values, empty, dates, np.isnan(values) & ~empty)


def _cells(line: str, separator: str) -> list[str]:
    return [unquoted(cell) for cell in line.rstrip("\r\n").split(separator)]


@contextmanager
def _opened(path: str | Path, encoding: str) -> Iterator[TextIO]:
    """The file, a byte order mark left out, its lines ended by line feeds alone: a carriage return, form feed or U+2028
    inside a title is no end."""
    with open(path, encoding="utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding, newline="\n") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path} is not in {encoding} (byte {error.object[error.start]:#04x}): save it so, or set "
                "`encoding` to its own."
            ) from None
