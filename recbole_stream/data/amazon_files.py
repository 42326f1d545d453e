"""The official Amazon review files of 2014, 2018 and 2023, read line by line.

Field names and column orders are those of the three releases' own pages
(McAuley Lab, UCSD). Nothing here holds more than one line in memory.
"""

from __future__ import annotations

import ast
import gzip
import io
import json
import re
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from recbole_stream.errors import InputError

__all__ = ["RELEASES", "Release", "read_interactions", "read_metadata"]


@dataclass(frozen=True)
class Release:
    """How one release names its fields and orders its columns.

    Attributes:
        version: the year, as `--version` takes it.
        user, item, rating, time: keys of a review; `item` is also the key of a product.
        columns: columns of the ratings-only csv, in file order.
        header: whether that csv begins with its column names.
        python_metadata: metadata lines are Python literals instead of JSON.
        brand, categories, features: keys of a product; `title`, `description` and `price` never changed.
    """

    version: str
    user: str
    item: str
    rating: str
    time: str
    columns: tuple[str, str, str, str]
    header: bool
    python_metadata: bool
    brand: str
    categories: str
    features: str


RELEASES = {
    release.version: release
    for release in (
        Release(
            "2014", "reviewerID", "asin", "overall", "unixReviewTime",
            columns=("reviewerID", "asin", "overall", "unixReviewTime"), header=False, python_metadata=True,
            brand="brand", categories="categories", features="feature",
        ),
        # The ratings csv of 2018 begins with the item, that of 2014 with the user.
        Release(
            "2018", "reviewerID", "asin", "overall", "unixReviewTime",
            columns=("asin", "reviewerID", "overall", "unixReviewTime"), header=False, python_metadata=False,
            brand="brand", categories="category", features="feature",
        ),
        # parent_asin joins the colours and sizes of one product; only it is a key of the metadata.
        Release(
            "2023", "user_id", "parent_asin", "rating", "timestamp",
            columns=("user_id", "parent_asin", "rating", "timestamp"), header=True, python_metadata=False,
            brand="store", categories="categories", features="features",
        ),
    )
}  # fmt: skip

# What an atomic file can hold as a token: no separator, no quote that would open a quoted field.
_ID = re.compile(r'[^\s"]+')
_REVIEWER = re.compile(r"A[0-9A-Z]{11,}")
_ASIN = re.compile(r"B[0-9A-Z]{9}|[0-9]{9}[0-9X]")
_TIME_LIMIT = 2**53  # RecBole reads timestamps as float64: integers are exact below
_LINES_PER_UPDATE = 4096


def read_interactions(path: Path, release: Release) -> Iterator[tuple[str, str, float, int]]:
    """Who reviewed what, how, and when, in file order.

    Args:
        path: a ratings csv (`.csv`) or reviews as JSON lines (`.json`, `.jsonl`), gzipped or not.
        release: the release the file belongs to.

    Yields:
        user, item, rating, timestamp (seconds in 2014 and 2018, milliseconds in 2023, as in the file).

    Raises:
        InputError: the file is missing, damaged, of another kind or of another release.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if ".csv" in suffixes:
        rows = _csv_rows(path, release)
    elif ".json" in suffixes or ".jsonl" in suffixes:
        rows = _json_rows(path, release)
    else:
        raise InputError(
            f"{path} is neither .csv, .json nor .jsonl (with or without .gz): give a file under its official name."
        )
    for number, user, item, rating, time in rows:
        try:
            if not (_ID.fullmatch(user) and _ID.fullmatch(item)):
                raise ValueError
            rating, time = float(rating), int(time)
            if not abs(time) < _TIME_LIMIT:
                raise ValueError
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f"Line {number} of {path} is no review of release {release.version} (user {user!r}, item {item!r}, "
                f"rating {rating!r}, time {time!r}): pass the --version that the file belongs to."
            ) from None
        yield user, item, rating, time


def read_metadata(path: Path, release: Release, wanted: Collection[str]) -> Iterator[tuple[str, dict]]:
    """The products among `wanted`, as they stand in the metadata file.

    A product whose id can be seen in the line without parsing it, and is not
    wanted, is skipped unparsed: that is most of the file and, for the Python
    literals of 2014, most of the time.

    Yields:
        item, its record; an item that the file holds twice comes twice.

    Raises:
        InputError: the file is missing, damaged, or of another release.
    """
    quote = "'" if release.python_metadata else '"'
    visible_id = re.compile(f"{quote}{release.item}{quote}: ?{quote}([^{quote}]+){quote}")
    parse = ast.literal_eval if release.python_metadata else json.loads
    for number, line in _lines(path):
        match = visible_id.search(line)
        if match and match[1] not in wanted:
            continue
        record = _record(line, parse, number, path, release)
        if release.item not in record:
            raise InputError(
                f"Line {number} of {path} has no '{release.item}': "
                f"pass the metadata that belongs to release {release.version}."
            )
        if record[release.item] in wanted:
            yield record[release.item], record


def _json_rows(path: Path, release: Release) -> Iterator[tuple]:
    keys = (release.user, release.item, release.rating, release.time)
    for number, line in _lines(path):
        record = _record(line, json.loads, number, path, release)
        missing = [key for key in keys if key not in record]
        if missing:
            raise InputError(
                f"Line {number} of {path} has no '{missing[0]}': pass the --version that the file belongs to."
            )
        yield number, *(record[key] for key in keys)


def _csv_rows(path: Path, release: Release) -> Iterator[tuple]:
    order = [release.columns.index(key) for key in (release.user, release.item, release.rating, release.time)]
    for number, line in _lines(path):
        cells = line.rstrip("\r\n").split(",")
        if number == 1 and release.header:
            if tuple(cells) != release.columns:
                raise InputError(
                    f"{path} does not begin with the header {','.join(release.columns)}: "
                    f"pass the rating_only csv of release {release.version}, or another --version."
                )
            continue
        if len(cells) != len(order):
            raise InputError(
                f"Line {number} of {path} has {len(cells)} columns in place of {','.join(release.columns)}: "
                f"pass the ratings csv of release {release.version}, or another --version."
            )
        user, item, rating, time = (cells[column] for column in order)
        # Users taken for items would go unnoticed for ever: the two csv orders hold the same types.
        if number == 1 and _ASIN.fullmatch(user) and _REVIEWER.fullmatch(item):
            raise InputError(
                f"Line 1 of {path} has item and user in the other order than release {release.version}: "
                "pass the --version that the file belongs to."
            )
        yield number, user, item, rating, time


def _record(line: str, parse, number: int, path: Path, release: Release) -> dict:
    try:
        record = parse(line)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        record = None
    if not isinstance(record, dict):
        kind = "Python" if parse is ast.literal_eval else "JSON"
        raise InputError(
            f"Line {number} of {path} is not a {kind} object, as release {release.version} has them: "
            "download the file again, or pass the --version that it belongs to."
        )
    return record


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines with their numbers, under a bar of compressed bytes (on a terminal only)."""
    if not path.is_file():
        raise InputError(f"There is no file {path}: download it as dataset/README.md says, or correct the path.")
    try:
        with (
            path.open("rb") as raw,
            tqdm(total=path.stat().st_size, unit="B", unit_scale=True, desc=path.name, disable=None) as bar,
        ):
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            stream = gzip.GzipFile(fileobj=raw) if packed else raw
            with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="\n") as text:
                for number, line in enumerate(text, start=1):
                    if number % _LINES_PER_UPDATE == 0:
                        bar.update(raw.tell() - bar.n)
                    if not line.isspace():
                        yield number, line
                bar.update(bar.total - bar.n)
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged or was cut off ({error}): download it again.") from error
