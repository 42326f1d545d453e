"""Tables that people have (CSV, Parquet, JSON lines, atomic files) as columns of strings."""

from __future__ import annotations

import gzip
import json
import math
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
from pyarrow import ArrowInvalid

from recbole_stream.atomic import read_header, read_rows
from recbole_stream.errors import InputError

__all__ = ["Source", "json_lines", "read_source", "separator_of"]

_JSON, _ATOMIC = (".jsonl", ".ndjson", ".json"), (".inter", ".item")
_KIND = re.compile(r":(token|float)(_seq)?$")  # behind the names of an atomic file's columns


@dataclass
class Source:
    """A table.

    Attributes:
        path: where it came from.
        table: columns of strings [n]; "" where there is nothing.
        lines: number of each row in the file, from 1 [n].
        word: what such a number counts, "line" or "row".
    """

    path: Path
    table: pd.DataFrame
    lines: np.ndarray
    word: str = "line"

    def keep(self, rows: np.ndarray) -> None:
        """Leave only the rows of a mask [n]."""
        self.table, self.lines = self.table[rows].reset_index(drop=True), self.lines[rows]


def read_source(path: Path) -> Source:
    """Read a table; what it is, its ending says: .parquet, .jsonl (.json, .ndjson), .inter or .item, or else CSV.

    All but Parquet may be compressed (.gz). A CSV file has its column names in the first line; commas, semicolons, tabs
    or bars between cells; quotes around cells as usual.

    Raises:
        InputError: there is no such file, or it cannot be read so.
    """
    if not path.is_file():
        raise InputError(f"There is no file {path}: correct the path.")
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending == ".parquet":
        return _parquet(path)
    if ending in _JSON:
        return _json(path)
    return _atomic(path) if path.suffix in _ATOMIC else _csv(path)


def _csv(path: Path) -> Source:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            header = file.readline()
        separator = separator_of(header)
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a first row longer than the header
            table = pd.read_csv(
                path, sep=separator, dtype=str, na_filter=False, encoding="utf-8-sig", index_col=False,
                skip_blank_lines=False, skipinitialspace=True,
            )  # fmt: skip
    except UnicodeDecodeError as fault:
        raise InputError(f"{path} is not in utf-8 (byte {fault.object[fault.start]:#04x}): save it so.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as fault:
        words = " ".join(str(fault).split()).removeprefix("Error tokenizing data. C error: ")
        raise InputError(
            f"{path} cannot be read as a table ({words}): give each row as many cells as the first line has, and put "
            "cells with separators in quotes."
        ) from None
    ends = sum(table[column].str.count("\n") for column in table)  # inside quoted cells
    lines = np.arange(2, len(table) + 2) + np.concatenate([[0], np.cumsum(ends)[:-1]]).astype(int)[: len(table)]
    source = Source(path, table.astype(object), lines)
    source.keep((table != "").any(axis=1).to_numpy())
    return source


def _atomic(path: Path) -> Source:
    columns = [_KIND.sub("", name) for name in read_header(path)]
    cells: dict[str, list[str]] = {column: [] for column in columns}
    lines = [np.zeros(0, int)]
    for rows in read_rows(path, columns):
        lines.append(rows.lines)
        for column in columns:
            cells[column] += rows.cells[column]
    return Source(path, pd.DataFrame(cells, dtype=object), np.concatenate(lines))


def separator_of(header: str) -> str:
    """What stands between the cells of a CSV file, by its first line."""
    return max(",;\t|", key=header.count)


def json_lines(path: Path, wanted: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number, from 1, and object of each line that is not empty; the file may be compressed (.gz).

    Args:
        path: of the file.
        wanted: what belongs there, for the message.

    Raises:
        InputError: a line is no JSON object.
    """
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise InputError(f"Line {number} of {path} is no JSON object: write {wanted}.")
            yield number, record


def _json(path: Path) -> Source:
    records, lines = [], []
    for number, record in json_lines(path, "one event or item a line"):
        records.append(record)
        lines.append(number)
    columns = dict.fromkeys(column for record in records for column in record)
    cells = {column: [_cell(record.get(column)) for record in records] for column in columns}
    return Source(path, pd.DataFrame(cells, dtype=object), np.array(lines, int))


def _parquet(path: Path) -> Source:
    try:
        table = pyarrow.parquet.read_table(path)
    except ArrowInvalid as fault:
        raise InputError(f"{path} is not Parquet ({fault}): correct its name or write it again.") from None
    cells = {name: list(map(_cell, column.to_pylist())) for name, column in zip(table.column_names, table.columns)}
    return Source(path, pd.DataFrame(cells, dtype=object), np.arange(1, table.num_rows + 1), "row")


def _cell(value: object) -> str:
    """A value as it would stand in a CSV file; lists with commas, 12.0 as 12 (an ID beside missing ones)."""
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return ", ".join(filter(None, map(_cell, value)))
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
