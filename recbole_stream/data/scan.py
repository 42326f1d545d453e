"""One look at every row of events: what is empty, odd or repeated in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from tqdm import tqdm

from recbole_stream.atomic import parse_numbers, read_rows

__all__ = ["UNITS", "Found", "Scan", "scan_file"]

# numbers that are Unix times between 1973 and 2286, in each unit
UNITS = {
    "seconds": (1e8, 1e10),
    "milliseconds": (1e11, 1e13),
    "microseconds": (1e14, 1e16),
    "nanoseconds": (1e17, 1e19),
}
_PATIENCE = 3.0  # seconds until a progress bar appears


@dataclass
class Found:
    """Rows of one kind.

    Attributes:
        count: how many.
        line: the number of the first one, 0 where there is none.
        cell: what that one holds.
    """

    count: int = 0
    line: int = 0
    cell: str = ""

    def add(self, which: np.ndarray, lines: np.ndarray, cells: Sequence[str]) -> None:
        """Count the rows of a mask [n], given the numbers of their lines [n] and their cells [n]."""
        count = int(which.sum())
        if count and not self.count:
            place = int(which.argmax())
            self.line, self.cell = int(lines[place]), str(cells[place])
        self.count += count


class Scan:
    """What was found in events; :meth:`add` takes them in parts.

    Args:
        names: columns that hold names, which may not be empty.
        numbers: other columns than the time that hold numbers.
        time: the column that holds the time; None without.

    Attributes:
        rows: how many there are.
        empty: column -> rows in which it is empty.
        words: column of numbers -> rows in which it holds neither a number nor an ISO date.
        dates, figures: rows whose time is an ISO date, or a number.
        units: unit of ``UNITS`` -> rows whose time is a number in its range.
        before: rows whose time is a number below all of these ranges, such as 0.
        repeated: rows that are the same as an earlier one, whose line is the cell; known after :meth:`finish`.
    """

    def __init__(self, names: Sequence[str], numbers: Sequence[str] = (), time: str | None = None) -> None:
        self.names, self.time = tuple(names), time
        self.numbers = (*numbers, *((time,) if time else ()))
        self.rows = 0
        self.empty = {column: Found() for column in (*self.names, *self.numbers)}
        self.words = {column: Found() for column in self.numbers}
        self.units = {unit: Found() for unit in UNITS}
        self.dates, self.figures, self.before, self.repeated = Found(), Found(), Found(), Found()
        self._lines: list[np.ndarray] = []
        self._hashes: list[np.ndarray] = []

    def add(self, lines: np.ndarray, rows: Sequence[object], cells: Mapping[str, Sequence[str]]) -> None:
        """Look at some rows.

        Args:
            lines: their numbers, for messages [n].
            rows: equal where rows repeat each other, hashable [n].
            cells: column -> its cells [n].
        """
        self.rows += len(lines)
        for column in self.names:
            empty = np.fromiter((not cell for cell in cells[column]), bool, len(lines))
            self.empty[column].add(empty, lines, cells[column])
        for column in self.numbers:
            numbers, own = parse_numbers(cells[column]), cells[column]
            self.empty[column].add(numbers.empty, lines, own)
            self.words[column].add(numbers.words, lines, own)
            if column == self.time:
                figures = ~(numbers.empty | numbers.words | numbers.dates)
                self.dates.add(numbers.dates, lines, own)
                self.figures.add(figures, lines, own)
                self.before.add(figures & (numbers.values < UNITS["seconds"][0]), lines, own)
                for unit, (low, high) in UNITS.items():
                    self.units[unit].add(figures & (numbers.values >= low) & (numbers.values < high), lines, own)
        self._lines.append(lines)
        self._hashes.append(np.fromiter(map(hash, rows), np.int64, len(rows)))

    def finish(self) -> None:
        """Count the rows that are the same as an earlier one, after the last of them."""
        if not self._hashes:
            return
        lines, hashes = np.concatenate(self._lines), np.concatenate(self._hashes)
        self._lines, self._hashes = [], []
        order = np.argsort(hashes, kind="stable")
        again = order[1:][hashes[order[1:]] == hashes[order[:-1]]]
        if len(again):
            first = int(again.min())
            earlier = int(lines[np.flatnonzero(hashes == hashes[first])[0]])
            self.repeated = Found(len(again), int(lines[first]), str(earlier))

    def faults(self, path: str | Path, remedy: str, word: str = "line") -> list[str]:
        """What cannot be used, in sentences: rows without a time, numbers that are none, numbers and dates as times.

        Args:
            path: what was looked at.
            remedy: what to do about rows that lack something.
            word: what a row is called.
        """
        found = []
        if self.time and self.empty[self.time].count:
            found.append(self.missing(self.time, path, remedy, word))
        for column in self.numbers:
            odd = self.words[column]
            if odd.count:
                more = f" ({odd.count:,} {word}s have no number there)" if odd.count > 1 else ""
                kind = "times as seconds or as ISO dates" if column == self.time else "a number, or leave it empty"
                found.append(
                    f"{word.capitalize()} {odd.line} of {path} has {odd.cell!r} as {column}{more}: write {kind}."
                )
        if self.dates.count and self.figures.count:
            found.append(
                f"{path} has numbers as {self.time} in {self.figures.count:,} {word}s (first: {word} "
                f"{self.figures.line}, {self.figures.cell!r}) and dates in {self.dates.count:,} (first: {word} "
                f"{self.dates.line}, {self.dates.cell!r}): write all of them in one way."
            )
        return found

    def missing(self, column: str, path: str | Path, remedy: str, word: str = "line") -> str:
        """A sentence on the rows in which a column is empty."""
        empty = self.empty[column]
        return (
            f"{empty.count:,} of {self.rows:,} rows of {path} have no {column} (first: {word} {empty.line}): {remedy}."
        )

    def repeats(self, path: str | Path, remedy: str, word: str = "line") -> str | None:
        """A sentence on rows that are the same as an earlier one, or None."""
        again = self.repeated
        if not again.count:
            return None
        return (
            f"{again.count:,} of {self.rows:,} rows of {path} are the same as an earlier one (first: {word} "
            f"{again.line}, the same as {word} {again.cell}), as when an export is appended to itself: {remedy}."
        )

    def mixed_units(self, path: str | Path, word: str = "line") -> str | None:
        """A sentence on times in more than one unit, or None."""
        units = {unit: found for unit, found in self.units.items() if found.count}
        if len(units) > 1:
            parts = (
                f"{found.count:,} {word}s in {unit} (first: {word} {found.line}, {found.cell})"
                for unit, found in units.items()
            )
            return (
                f"{path} has {self.time} in several units, {' and '.join(parts)}: their order is wrong; write one unit."
            )
        return None

    def early_times(self, path: str | Path, word: str = "line") -> str | None:
        """A sentence on times such as 0 or -1 beside those of today, or None."""
        if not self.before.count or not any(found.count for found in self.units.values()):
            return None
        return (
            f"{self.before.count:,} of {self.rows:,} rows of {path} have a {self.time} before 1973 (first: {word} "
            f"{self.before.line}, {self.before.cell}), beside times of today: delete them if that means unknown."
        )


@lru_cache(maxsize=32)
def _scan_file(
    path: Path,
    state: tuple[int, int],
    names: tuple,
    numbers: tuple,
    time: str | None,
    separator: str,
    encoding: str,
    show: bool,
) -> Scan:
    """:func:`scan_file`, for one state of the file (size, time of its last change)."""
    scan = Scan(names, numbers, time)
    columns = [column for column in (*names, *numbers, time) if column]
    with tqdm(
        total=state[0], desc=f"checking {path.name}", unit="B", unit_scale=True, delay=_PATIENCE, disable=not show
    ) as bar:
        for rows in read_rows(path, columns, separator, encoding):
            scan.add(rows.lines, rows.text, rows.cells)
            bar.update(sum(map(len, rows.text)) + len(rows.text))
    scan.finish()
    return scan


def scan_file(
    path: str | Path,
    names: Sequence[str],
    numbers: Sequence[str] = (),
    time: str | None = None,
    separator: str = "\t",
    encoding: str = "utf-8",
    show_progress: bool = False,
) -> Scan:
    """Look at every row of an atomic file, once while it does not change.

    Args:
        path: the file.
        names, numbers, time: columns, as for :class:`Scan`.
        separator: between cells.
        encoding: of the file.
        show_progress: whether a bar appears where it takes long.

    Raises:
        InputError: the file cannot be read; see :func:`read_rows`.
    """
    path = Path(path)
    stat = path.stat()
    state = (stat.st_size, stat.st_mtime_ns)
    return _scan_file(path, state, tuple(names), tuple(numbers), time, separator, encoding, show_progress)
