"""Amazon review files to RecBole's atomic files.

    python -m recbole_stream.data.amazon --version 2023 --category Musical_Instruments \\
        --reviews Musical_Instruments.jsonl.gz --meta meta_Musical_Instruments.jsonl.gz --output dataset

writes dataset/amazon-musical-instruments-2023/ with an .inter and an .item file.

Memory: while the reviews are read, an interaction is 28 bytes (hashed user and
item, time, rating), and about 60 at the peak of the filters; the ids themselves
wait in a temporary file until it is known which of them survive. Metadata is
written as it is read.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import numpy as np

from recbole_stream.data.amazon_core import factorise, first_of_pairs, frequent, iterated_k_core
from recbole_stream.data.amazon_files import RELEASES, Release, read_interactions, read_metadata
from recbole_stream.data.amazon_text import ITEM_HEADER, item_cells
from recbole_stream.data.command import exit_code
from recbole_stream.errors import InputError

__all__ = ["DUPLICATES", "INTER_HEADER", "Statistics", "convert", "dataset_name", "main"]

INTER_HEADER = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
DUPLICATES = ("first", "last", "keep")


@dataclass(frozen=True)
class Statistics:
    """What Table 1 of the paper says of a data set, and what its text lacks.

    Attributes:
        dataset: name of the data set.
        sequences, items, actions: users, items and interactions that survived.
        without_text: items whose text columns are all empty.
    """

    dataset: str
    sequences: int
    items: int
    actions: int
    without_text: int

    def line(self) -> str:
        """The row of Table 1: sequences, items, actions, average length, sparsity (share of pairs without action)."""
        length = self.actions / self.sequences
        sparsity = 1 - length / self.items
        return (
            f"{self.dataset}: {self.sequences:,} sequences, {self.items:,} items, {self.actions:,} actions, "
            f"average length {length:.2f}, sparsity {sparsity:.2%}"
        )


def dataset_name(category: str, version: str) -> str:
    """`Musical_Instruments`, `2023` -> `amazon-musical-instruments-2023`."""
    slug = "-".join(re.findall(r"[a-z0-9]+", category.lower()))
    if not slug:
        raise InputError(f"--category {category!r} names no category: give it as the file does, e.g. Books.")
    return f"amazon-{slug}-{version}"


def convert(
    version: str,
    category: str,
    reviews: Path,
    meta: Path,
    output: Path,
    min_interactions: int = 5,
    duplicates: str = "first",
) -> Statistics:
    """Writes `output/<dataset>/<dataset>.inter` and `.item`, both or neither.

    Order of the filters: repeated (user, item) pairs go first, then users and
    items with fewer than `min_interactions` actions, until all have enough
    (iterated k-core), as in the benchmark files of the 2023 release.

    The .inter file holds one user after the other, each in order of time;
    actions of the same time keep the order of the reviews file. Times are
    those of the reviews: seconds in 2014 and 2018, milliseconds in 2023.
    The .item file holds a row for every item of the .inter file, with empty
    cells for an item that the metadata does not know.

    Args:
        version: release of the files, a key of `RELEASES`.
        category: names the data set, see `dataset_name`.
        reviews: reviews or ratings of that release.
        meta: its metadata.
        output: folder of data sets, RecBole's `data_path`.
        min_interactions: least actions of a user and of an item, at least 1.
        duplicates: of several actions of one user with one item, the `first`, the `last`, or `keep` all.

    Raises:
        InputError: a file that cannot be used, or nothing left after the filters.
    """
    release = RELEASES[version]
    name = dataset_name(category, version)
    if min_interactions < 1:
        raise InputError(f"--min_interactions {min_interactions} is below 1: give 5 for a five-core, 1 for no filter.")
    for path in (reviews, meta):
        if not path.is_file():
            raise InputError(f"There is no file {path}: download it as dataset/README.md says, or correct the path.")
    output.mkdir(parents=True, exist_ok=True)
    # Beside the target, so that the renames at the end stay on one file system.
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=output) as folder:
        work = Path(folder)
        rows, users, items, times, ratings = _survivors(
            read_interactions(reviews, release), work / "ids", min_interactions, duplicates
        )
        if not len(rows):
            raise InputError(
                f"No interaction of {reviews} is left when every user and item needs {min_interactions}: "
                "pass a larger file or a lower --min_interactions."
            )
        user_names = _names(work / "ids", 0, rows, users)
        item_names = _names(work / "ids", 1, rows, items)
        _write(
            work / "inter",
            INTER_HEADER,
            (
                (user_names[user], item_names[item], f"{rating:g}", str(time))
                for user, item, rating, time in zip(users, items, ratings, times, strict=True)
            ),
        )
        records = read_metadata(meta, release, frozenset(item_names))
        without_text = _write_items(work / "item", records, item_names, release)
        target = output / name
        target.mkdir(exist_ok=True)
        for suffix in ("item", "inter"):
            os.replace(work / suffix, target / f"{name}.{suffix}")
    return Statistics(name, len(user_names), len(item_names), len(rows), without_text)


def _collect(interactions: Iterable[tuple[str, str, float, int]], ids: Path) -> tuple[np.ndarray, ...]:
    """Interactions as arrays: user hash, item hash, time (int64 each) and rating (float32), `[n]` each.

    Hashes in place of a dictionary of ids: 20 million users would fill the
    memory. Two of 20 million ids share a 64-bit hash with probability 1e-5.
    """
    users, items, times, ratings = array("q"), array("q"), array("q"), array("f")
    with ids.open("w", encoding="utf-8") as file:
        for user, item, rating, time in interactions:
            users.append(hash(user))
            items.append(hash(item))
            times.append(time)
            ratings.append(rating)
            file.write(f"{user}\t{item}\n")
    return tuple(np.frombuffer(column, dtype=column.typecode) for column in (users, items, times, ratings))


def _survivors(
    interactions: Iterable[tuple[str, str, float, int]], ids: Path, least: int, duplicates: str
) -> tuple[np.ndarray, ...]:
    """What is left of the interactions, in the order of the .inter file.

    Returns:
        row in the reviews file, codes from 0 of user and item, time and rating; `[kept]` each.
    """
    users, items, times, ratings = _collect(interactions, ids)
    # Repeats only add to the counts: what is too rare with them is too rare without.
    rows = np.flatnonzero(frequent(users, least))
    rows = rows[frequent(items[rows], least)]
    # From here on only what passed the sieve: the large arrays are let go one by one.
    users = factorise(users[rows])
    items = factorise(items[rows])
    times, ratings = times[rows], ratings[rows]
    order = np.lexsort((times, users))  # stable: equal times keep the order of the file
    if duplicates == "first":
        order = order[first_of_pairs(users[order], items[order])]
    elif duplicates == "last":
        order = order[::-1]
        order = order[first_of_pairs(users[order], items[order])][::-1]
    order = order[iterated_k_core(users[order], items[order], least)]
    return rows[order], factorise(users[order]), factorise(items[order]), times[order], ratings[order]


def _names(ids: Path, column: int, rows: np.ndarray, codes: np.ndarray) -> list[str]:
    """The id behind every code, read from the line of a row that holds it; `[codes]`."""
    lines = rows[np.unique(codes, return_index=True)[1]]
    order = np.argsort(lines)
    names = [""] * len(lines)
    with ids.open(encoding="utf-8", newline="\n") as file:
        position = 0
        for code, line in zip(order.tolist(), lines[order].tolist(), strict=True):
            names[code] = next(islice(file, line - position, None)).rstrip("\n").split("\t")[column]
            position = line + 1
    return names


def _write(path: Path, header: tuple[str, ...], rows: Iterable[Iterable[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in chain([header], rows):
            file.write("\t".join(row) + "\n")


def _write_items(path: Path, records: Iterator[tuple[str, dict]], items: list[str], release: Release) -> int:
    """The .item file; of an item's records the first counts. Returns the number of items without any text."""
    unseen = dict.fromkeys(items)
    without_text = 0

    def rows() -> Iterator[list[str]]:
        nonlocal without_text
        for item, record in records:
            if item in unseen:
                del unseen[item]
                cells = item_cells(item, record, release)
                without_text += not any(cells[1:-1])
                yield cells
        without_text += len(unseen)
        for item in unseen:
            yield item_cells(item, {}, release)

    _write(path, ITEM_HEADER, rows())
    return without_text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m recbole_stream.data.amazon",
        description="Converts the official Amazon review files to RecBole's atomic files.",
    )
    parser.add_argument("--version", required=True, choices=sorted(RELEASES), help="release the files belong to")
    parser.add_argument("--category", required=True, help="name of the category, e.g. Musical_Instruments")
    parser.add_argument("--reviews", required=True, type=Path, help="reviews (.json, .jsonl) or ratings (.csv), or .gz")
    parser.add_argument("--meta", required=True, type=Path, help="metadata of the same category and release")
    parser.add_argument("--output", required=True, type=Path, help="folder of data sets (RecBole's data_path)")
    parser.add_argument("--min_interactions", type=int, default=5, help="least actions per user and item (default 5)")
    parser.add_argument(
        "--duplicates", choices=DUPLICATES, default="first",
        help="of repeated (user, item) pairs keep the first in time (default), the last, or all",
    )  # fmt: skip
    return parser


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code: 0, or 2 after one sentence about the input on stderr."""
    options = _parser().parse_args(arguments)

    def action() -> None:
        statistics = convert(**vars(options))
        print(statistics.line())
        print(f"{statistics.without_text:,} items have no text.")
        print(f"Written to {options.output / statistics.dataset}; use --dataset={statistics.dataset}.")

    return exit_code(action)


if __name__ == "__main__":
    sys.exit(main())
