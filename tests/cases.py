"""Small data sets with one fault each: 60 users walk along a ring of 30 items that have titles."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["CASES", "EVENTS", "TITLES", "iso", "last_items", "write_atomic", "write_case", "write_split"]

HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def _events() -> list[tuple[str, str, int]]:
    """(user, item, second), the users one after another, each in time order."""
    draw, rows = random.Random(7), []
    for user in range(60):
        place, time = draw.randrange(30), 1_600_000_000 + draw.randrange(10_000_000)
        for _ in range(draw.randint(5, 9)):
            place = (place + draw.choice([1, 1, 2, -1])) % 30
            time += draw.randint(60, 90_000)
            rows.append((f"u{user:02d}", f"i{place:02d}", time))
    return rows


EVENTS = _events()
TITLES = {f"i{item:02d}": f"{('red', 'blue', 'green')[item % 3]} lamp number {item}" for item in range(30)}


def iso(time: int) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat()


def quoted(*cells: object) -> tuple[str, ...]:
    return tuple(f'"{cell}"' for cell in cells)


def _named(**names: str) -> tuple[list[tuple], list[tuple]]:
    """The events and titles under other names of some users and items."""
    events = [(names.get(user, user), names.get(item, item), time) for user, item, time in EVENTS]
    return events, [(names.get(item, item), title) for item, title in TITLES.items()]


def _timed(time) -> tuple[list[tuple], list[tuple]]:
    """The events with times made of their number and time."""
    return [(user, item, time(n, t)) for n, (user, item, t) in enumerate(EVENTS)], list(TITLES.items())


CASES = {
    "toy": _named(),
    "notime": _timed(lambda n, t: "" if n % 25 == 7 else t),
    "iso": _timed(lambda n, t: iso(t)),
    "isolater": _timed(lambda n, t: t if n < 40 else iso(t)),
    "mixed": _timed(lambda n, t: t * 1000 if n % 2 else t),
    "twice": ([row for row in EVENTS for _ in range(2)], list(TITLES.items())),
    "naids": _named(i05="NA", i06="null", u03="None", u04="nan"),
    "quoted": ([(*quoted(user, item), time) for user, item, time in EVENTS], [quoted(*row) for row in TITLES.items()]),
    "halfquote": _named(i10='"i10', i15='"i15'),
}


def write_atomic(folder: Path, name: str, events: list[tuple], titles: list[tuple]) -> str:
    """Write ``folder/name`` and return ``folder``."""
    (folder / name).mkdir(parents=True)
    for ending, header, rows in (("inter", HEADER, events), ("item", "item_id:token\ttitle:token_seq", titles)):
        lines = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        (folder / name / f"{name}.{ending}").write_text(f"{header}\n{lines}")
    return str(folder)


def write_case(folder: Path, name: str) -> str:
    """Write one of ``CASES`` and return its ``data_path``."""
    return write_atomic(folder, name, *CASES[name])


def last_items() -> dict[str, str]:
    """User -> the item of their last event."""
    return {user: item for user, item, _ in EVENTS}


def write_split(folder: Path, name: str) -> str:
    """Write files to train, validate and test with that hold ready histories and no time; return the ``data_path``."""
    (folder / name).mkdir(parents=True)
    sequences: dict[str, list[str]] = {}
    for user, item, _ in EVENTS:
        sequences.setdefault(user, []).append(item)
    rows: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for user, items in sequences.items():
        for n in range(1, len(items)):
            part = {len(items) - 1: "test", len(items) - 2: "valid"}.get(n, "train")
            rows[part].append(f"{user}\t{' '.join(items[:n])}\t{items[n]}\n")
    for part, lines in rows.items():
        header = "user_id:token\titem_id_list:token_seq\titem_id:token\n"
        (folder / name / f"{name}.{part}.inter").write_text(header + "".join(lines))
    titles = "".join(f"{item}\t{title}\n" for item, title in TITLES.items())
    (folder / name / f"{name}.item").write_text(f"item_id:token\ttitle:token_seq\n{titles}")
    return str(folder)
