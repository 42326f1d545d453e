"""Files of histories, read in parts: a million of them need no more memory than the largest part.

A file holds one history a row (a column ``items``: a list, or in a CSV file names with spaces between them; and, if
wanted, a column ``user`` or ``id`` that names the row), or one event a row (user, item, time), from which the histories
are made. Events take 16 bytes each, whatever their names are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
from pyarrow import ArrowInvalid

from recbole_stream.data.sources import json_lines, separator_of
from recbole_stream.data.table import column_of
from recbole_stream.errors import InputError

__all__ = ["Named", "read_histories"]

Named = list[tuple[str, list[str]]]  # a name of each history, and its items

_LIST = "items"
_NAMES = ("user", "id", "user_id")
_CHUNK = 1 << 16  # rows of a file that are read at once


def read_histories(path: str | Path, size: int) -> Iterator[Named]:
    """The histories of a file, ``size`` at a time.

    Args:
        path: ends in .parquet, .jsonl (.ndjson, .json), or else is read as CSV.
        size: histories in all parts but the last.

    Raises:
        InputError: there is no such file, it cannot be read so, has neither form, or no row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: correct --histories.")
    chunks = _chunks(path)
    first = next(chunks, None)
    if first is None or not len(first):
        raise InputError(f"{path} has no rows: give at least one history.")

    def rest() -> Iterator[pd.DataFrame]:
        yield first
        yield from chunks

    named = _rows(path, rest()) if _LIST in first else _events(path, rest())
    part: Named = []
    for row in named:
        part.append(row)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _chunks(path: Path) -> Iterator[pd.DataFrame]:
    """The file as tables; cells as they are in Parquet and JSON, strings in CSV."""
    try:
        if path.suffix == ".parquet":
            with pyarrow.parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(_CHUNK):
                    yield batch.to_pandas()
        elif path.suffix in (".jsonl", ".ndjson", ".json"):
            yield from _json_chunks(path)
        else:
            with path.open(encoding="utf-8-sig") as file:
                header = file.readline()
            yield from pd.read_csv(
                path,
                sep=separator_of(header),
                dtype=str,
                na_filter=False,
                encoding="utf-8-sig",
                chunksize=_CHUNK,
                index_col=False,
            )
    except (ArrowInvalid, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as fault:
        words = " ".join(str(fault).split())[:200]
        raise InputError(
            f"{path} cannot be read as its name says ({words}): write it as CSV, Parquet or JSON lines."
        ) from None


def _json_chunks(path: Path) -> Iterator[pd.DataFrame]:
    records: list[dict[str, Any]] = []
    for _, record in json_lines(path, "one history or event a line"):
        records.append(record)
        if len(records) == _CHUNK:
            yield pd.DataFrame(records)
            records = []
    if records:
        yield pd.DataFrame(records)


def _rows(path: Path, chunks: Iterator[pd.DataFrame]) -> Iterator[tuple[str, list[str]]]:
    number = 0
    for chunk in chunks:
        name = next((column for column in _NAMES if column in chunk), None)
        names = chunk[name] if name else range(number, number + len(chunk))
        for own, items in zip(names, chunk[_LIST]):
            number += 1
            if isinstance(items, str):
                yield str(own), items.split()
            elif isinstance(items, Sequence | np.ndarray):
                yield str(own), [str(item) for item in items]
            else:
                raise InputError(
                    f"Row {number} of {path} has no list in its column {_LIST}: give one, or leave it out."
                )


def _events(path: Path, chunks: Iterator[pd.DataFrame]) -> Iterator[tuple[str, list[str]]]:
    codes: dict[str, dict[str, int]] = {"user": {}, "item": {}}
    parts: dict[str, list[np.ndarray]] = {"user": [], "item": [], "time": []}
    columns: dict[str, str] = {}
    for chunk in chunks:
        columns = columns or {role: column_of(path, list(chunk), role) for role in parts}
        for role, known in codes.items():
            cells = chunk[columns[role]].astype(str)
            parts[role].append(
                cells.map(lambda cell, known=known: known.setdefault(cell, len(known))).to_numpy(np.int32)
            )
        parts["time"].append(_times(path, chunk[columns["time"]]))
    user, item, time = (np.concatenate(parts[role]) for role in ("user", "item", "time"))
    order = np.lexsort((time, user))  # stable: equal times keep the order of the file
    names = {role: list(known) for role, known in codes.items()}
    ends = np.cumsum(np.bincount(user, minlength=len(names["user"])))
    for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends)):
        yield names["user"][number], [names["item"][place] for place in item[order[start:end]]]


def _times(path: Path, cells: pd.Series) -> np.ndarray:
    times = pd.to_numeric(cells, errors="coerce")
    if times.isna().any():
        dates = pd.to_datetime(cells, errors="coerce", utc=True)
        wrong = dates.isna().to_numpy()
        if wrong.any():
            raise InputError(
                f"{path} has the time {cells.iloc[int(wrong.argmax())]!r}, which is neither a number nor a date: correct it."
            )
        times = (dates - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    numbers = times.to_numpy(np.float64)
    if not np.isfinite(numbers).all():
        raise InputError(f"{path} has a time that is infinite: correct it.")
    return numbers
