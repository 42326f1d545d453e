"""Converts a table of events (CSV, Parquet or JSON lines) to RecBole's atomic files.

    python -m recbole_stream.data.table --inter events.csv --items items.csv --output dataset

Columns with usual names are found; others are named. The folder then holds NAME/NAME.inter and, where items have
text, NAME/NAME.item. Events keep their order.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recbole_stream.atomic import parse_numbers
from recbole_stream.data.amazon_text import atomic_cell, one_line
from recbole_stream.data.command import exit_code
from recbole_stream.data.scan import UNITS, Scan
from recbole_stream.data.sources import Source, read_source
from recbole_stream.errors import InputError

__all__ = ["Converted", "column_of", "convert", "main"]

# how columns are called, in lower case and without signs
USUAL = {
    "user": "user userid uid username customer customerid reviewer reviewerid visitor visitorid member memberid "
    "account accountid player playerid session sessionid",
    "item": "item itemid iid product productid asin parentasin sku article articleid movie movieid book bookid track "
    "trackid song songid business businessid good goodsid video videoid",
    "time": "time timestamp ts date datetime eventtime eventtimestamp createdat unixreviewtime reviewtime unixtime",
}
_PER_SECOND = dict(zip(UNITS, (1, 1e3, 1e6, 1e9)))


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        folder: of the data set; its name is the data set's.
        users, items, events: how many.
        short: users of fewer than 3 events, too few for leave-one-out.
        text: columns of the .item file; none without such a file.
        notes: sentences on what was dropped, left out or odd.
    """

    folder: Path
    users: int
    items: int
    events: int
    short: int
    text: list[str]
    notes: list[str]


def convert(
    inter: Path,
    output: Path,
    items: Path | None = None,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
    text: Sequence[str] = (),
    name: str | None = None,
    drop_incomplete: bool = False,
    drop_repeated: bool = False,
) -> Converted:
    """Write a data set: both of its files, or nothing.

    Args:
        inter: table of events.
        output: folder of data sets, RecBole's ``data_path``.
        items: table of items.
        user, item, time: columns; by default the one that has one of the names of ``USUAL``.
        text: columns that describe items, of ``items`` or else of ``inter``; by default those of ``items`` that are not
            all numbers.
        name: of the data set; by default that of the table's file.
        drop_incomplete: leave out events without a user, item or time.
        drop_repeated: leave out rows that are the same as an earlier one.

    Raises:
        InputError: a table that cannot be read, a column that is not there or cannot be told, events that lack
            something, times that are none or of several kinds, a data set of that name that is there already.
    """
    name = name or re.sub(r"[^\w-]+", "-", inter.name.split(".")[0])
    folder = output / name
    if folder.exists():
        raise InputError(f"{folder} is there already: choose another --name, or delete it.")
    events = read_source(inter)
    user, item, time = (
        _choose(events, role, column) for role, column in (("user", user), ("item", item), ("time", time))
    )
    if len({user, item, time}) < 3:
        raise InputError(f"--user {user}, --item {item} and --time {time} must be three columns of {inter}.")
    notes = _clean(events, user, item, time, drop_incomplete, drop_repeated)
    users, ids, seconds = events.table[user], events.table[item], _seconds(events.table[time])
    texts = _item_texts(events, item, read_source(items) if items else None, list(text), ids, notes)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=output) as scratch:
        work = Path(scratch) / name
        work.mkdir()
        header: tuple[str, ...] = ("user_id:token", "item_id:token", "timestamp:float")
        _write(work / f"{name}.inter", header, zip(map(_id_cell, users), map(_id_cell, ids), seconds))
        fields = list(texts.columns[1:])
        if fields:
            columns: list[Iterable[str]] = [map(_id_cell, texts.iloc[:, 0])]
            columns += [(atomic_cell(one_line(cell)) for cell in texts[field]) for field in fields]
            header = ("item_id:token", *(f"{field}:token_seq" for field in fields))
            _write(work / f"{name}.item", header, zip(*columns))
        os.replace(work, folder)  # both files at once
    counts = users.value_counts()
    return Converted(folder, len(counts), ids.nunique(), len(ids), int((counts < 3).sum()), fields, notes)


def _choose(source: Source, role: str, given: str | None) -> str:
    """The column of a role: the one that was given, or the only one with a usual name."""
    columns = list(source.table.columns)
    if given is not None:
        if given not in columns:
            raise InputError(
                f"{source.path} has no column {given!r} for --{role}: its columns are {', '.join(columns)}."
            )
        return given
    return column_of(source.path, columns, role, f"name it with --{role}")


def column_of(path: Path | str, columns: Sequence[str], role: str, cure: str = "rename it") -> str:
    """The only column of a table with a usual name for a role, one of ``USUAL``.

    Raises:
        InputError: there is none, or several.
    """
    usual = [column for column in columns if re.sub(r"[^a-z0-9]", "", column.lower()) in USUAL[role].split()]
    if len(usual) == 1:
        return usual[0]
    which = f"may have its {role} in {' or '.join(usual)}" if usual else f"has no column that is plainly the {role}"
    raise InputError(f"{path} {which}: {cure}; its columns are {', '.join(columns)}.")


def _clean(events: Source, user: str, item: str, time: str, drop_incomplete: bool, drop_repeated: bool) -> list[str]:
    """Check events, and drop what is to be dropped from them.

    Returns:
        notes on what was dropped, or is odd.
    """
    path, word, notes = events.path, events.word, []
    for column in (user, item):
        events.table[column] = events.table[column].str.strip()
    scan = _scanned(events, user, item, time)
    lacking = [column for column in (user, item, time) if scan.empty[column].count]
    if lacking:
        without = parse_numbers(events.table[time]).empty
        for column in (user, item):
            without = without | (events.table[column] == "").to_numpy(bool)
        found = ", ".join(f"{c} in {scan.empty[c].count:,} (first: {word} {scan.empty[c].line})" for c in lacking)
        sentence = f"{int(without.sum()):,} of {scan.rows:,} rows of {path} are incomplete: {found}"
        if not drop_incomplete:
            raise InputError(f"{sentence}: fill them in, or leave these rows out with --drop-incomplete.")
        notes.append(f"{sentence}; they are left out.")
        events.keep(~without)
        scan = _scanned(events, user, item, time)
    if not scan.rows:
        raise InputError(f"{path} has no events.")
    faults = scan.faults(path, "fill it in", word) + list(filter(None, [scan.mixed_units(path, word)]))
    if faults:
        raise InputError(faults[0])
    if drop_repeated and scan.repeated.count:
        events.keep(~events.table.duplicated().to_numpy())
        notes.append(scan.repeats(path, "they are left out", word))
    else:
        notes.append(scan.repeats(path, "leave them out with --drop-repeated unless they are meant", word))
    return [note for note in (*notes, scan.early_times(path, word)) if note]


def _scanned(events: Source, user: str, item: str, time: str) -> Scan:
    scan = Scan((user, item), time=time)
    cells = {column: events.table[column].tolist() for column in events.table}
    scan.add(events.lines, list(zip(*cells.values())), cells)
    scan.finish()
    return scan


def _seconds(cells: pd.Series) -> list[str]:
    """Times of one unit [n] in seconds; numbers that are no Unix times, such as 1, 2, 3, as they are."""
    values = parse_numbers(cells.tolist()).values
    for unit, (low, high) in UNITS.items():
        if ((values >= low) & (values < high)).any():
            values = values / _PER_SECOND[unit]
            break
    return [str(int(value)) if value.is_integer() else f"{value:.6f}".rstrip("0") for value in values.tolist()]


def _item_texts(
    events: Source, item: str, items: Source | None, text: list[str], ids: pd.Series, notes: list[str]
) -> pd.DataFrame:
    """A row for each item of ``ids`` that is described: its ID and its texts, under names fit for a header."""
    source = items or events
    table = source.table
    key = item if items is None or item in table else _choose(source, "item", None)
    missing = [column for column in text if column not in table or column == key]
    if missing:
        raise InputError(
            f"{source.path} has no column of text {', '.join(missing)} (--text): its columns are {', '.join(table)}."
        )
    if items is not None and not text:
        numbers = [
            column for column in table if column != key and parse_numbers(table[column].tolist()).words.sum() == 0
        ]
        text = [column for column in table if column not in (key, *numbers)]
        if not text:
            raise InputError(
                f"{source.path} has no column of text beside {key}: name what describes items with --text."
            )
        if numbers:
            notes.append(f"{', '.join(numbers)} of {source.path} hold numbers and are no text; --text takes them in.")
    rows = table.assign(**{key: table[key].str.strip()})[[key, *text]]
    rows = rows[rows[key].isin(set(ids))].drop_duplicates(key)
    if not len(rows):
        raise InputError(
            f"No {key} of {source.path} (such as {table[key].iloc[0]!r}) is an item of {events.path} (such as "
            f"{ids.iloc[0]!r}): both must name items alike."
        )
    unknown = ids.nunique() - len(rows)
    if text and unknown:
        notes.append(f"{unknown:,} of {ids.nunique():,} items have no row in {source.path}, and so no text.")
    names = [re.sub(r"\W+", "_", column).strip("_") for column in text]
    if len({"item_id", *names}) < len(names) + 1:
        raise InputError(
            f"The columns {', '.join(text)} of {source.path} need names that differ in letters: rename some."
        )
    return rows.set_axis(["item_id", *names], axis=1)


def _id_cell(name: str) -> str:
    """An ID as a cell that every reader gives back whole; see ``recbole_stream.atomic``."""
    name = re.sub(r"[\t\r\n]+", " ", name)
    doubled = name.replace('"', '""')
    return f'"{doubled}"' if name.startswith('"') else name


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(header) + "\n")
        file.writelines("\t".join(row) + "\n" for row in rows)


def next_command(converted: Converted, output: Path) -> str:
    """What to type now."""
    models = "SASRec,TIGER,STREAMRec" if converted.text else "GRU4Rec,SASRec"
    words = [
        "python",
        "run_recbole.py",
        f"--model={models}",
        f"--dataset={converted.folder.name}",
        f"--data_path={output}",
    ]
    if converted.text:
        words.append(f"--text_fields=[{','.join(converted.text)}]")
    if converted.short:
        words.append("--user_inter_num_interval=[5,inf)")
    return shlex.join(words)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recbole_stream.data.table",
        description="Converts a table of events (CSV, Parquet or JSON lines) to RecBole's atomic files.",
    )
    parser.add_argument("--inter", required=True, type=Path, help="table of events: who took which item when")
    parser.add_argument("--items", type=Path, help="table of items with their texts")
    parser.add_argument("--output", required=True, type=Path, help="folder of data sets (RecBole's data_path)")
    for role in ("user", "item", "time"):
        parser.add_argument(f"--{role}", metavar="COLUMN", help=f"column of the {role} (default: by its name)")
    parser.add_argument(
        "--text", type=lambda words: words.split(","), default=[], metavar="COLUMN,COLUMN",
        help="columns that describe items, of --items or else of --inter (default: those of --items that hold words)",
    )  # fmt: skip
    parser.add_argument("--name", help="name of the data set (default: that of the table's file)")
    parser.add_argument("--drop-incomplete", action="store_true", help="leave out events without user, item or time")
    parser.add_argument("--drop-repeated", action="store_true", help="leave out rows that repeat an earlier one")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after one sentence about the input on stderr."""
    options = _parser().parse_args(arguments)

    def action() -> None:
        converted = convert(**vars(options))
        for note in converted.notes:
            print(note)
        print(f"{converted.users:,} users, {converted.items:,} items, {converted.events:,} events: {converted.folder}")
        if not converted.text:
            print("There is no item text: TIGER and STREAMRec need some (--items or --text), or a semantic_ids_file.")
        if converted.short:
            print(
                f"{converted.short:,} users have fewer than 3 events, too few to test: the command leaves out all below 5."
            )
        print(f"Next: {next_command(converted, options.output)}")

    return exit_code(action)


if __name__ == "__main__":
    sys.exit(main())
