"""``python -m speed generate``: a synthetic data set of any size, as atomic files.

Items belong to topics and are drawn by a power law within them. A user has sessions; a session keeps to one topic and
moves in runs, in which each item is followed by the same next one, so that there is something to learn. An item's text
is made by a grammar from its topic and its number. Everything follows from the seed and is made in parts, so that
memory does not grow with the events.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_stream.errors import InputError
from recbole_stream.files import whole_file

__all__ = ["Log", "events", "main", "texts", "write"]

_USERS = 50_000  # generated at once
_LEAST = 5  # events of a user, so that a filter of five keeps all of them

_TONES = "black white red blue green amber silver copper ivory slate coral violet".split()
_FORMS = "slim heavy folding compact sturdy light curved quiet padded sealed".split()
_STUFFS = "steel bamboo cotton glass leather nylon oak ceramic rubber linen".split()
_THINGS = (
    "lamp kettle drill tuner brush pedal hose tripod pillow scale clamp mug valve cable visor tray ladder mask string "
    "bucket helmet filter speaker saw blender stand rope jacket sensor razor"
).split()
_USES = "travel kitchens workshops stages gardens offices children runners painters winter".split()
_MAKERS = "Arden Bolt Corvo Delta Elmer Fenn Garro Hale Ivero Juno Kestrel Lumen".split()


@dataclass(frozen=True)
class Log:
    """What is generated.

    Attributes:
        events: at least so many; the last user may add a few.
        items: in the .item file; rare ones may have no event.
        seed: of everything random.
        length: mean events of a user.
        topics: groups of items, at most; a topic has at least 20 items.
        exponent: of the power law of a topic's items, below 1.
        follow: probability that the next item of a session is the successor of the last.
    """

    events: int
    items: int
    seed: int = 0
    length: int = 10
    topics: int = 300
    exponent: float = 0.8
    follow: float = 0.5

    def __post_init__(self) -> None:
        if self.events < _LEAST or self.items < 20 or self.length <= _LEAST:
            raise InputError(
                f"events, items and length are {self.events}, {self.items} and {self.length}, but must be at least "
                f"{_LEAST}, 20 and {_LEAST + 1}."
            )

    @property
    def groups(self) -> int:
        """How many topics there are."""
        return min(self.topics, self.items // 20)


def events(log: Log) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Users, items and Unix times of events, part after part, each [n] in int64; a user's events follow each other.

    Users and items are numbered from 1; a user is in one part only.
    """
    first, left = 1, log.events
    for part in itertools.count():
        if left <= 0:
            return
        rng = np.random.default_rng([log.seed, part])
        # a part is the same whatever the number of events: a smaller log is the beginning of a larger one
        lengths = _LEAST + rng.geometric(1 / (log.length - _LEAST + 1), _USERS) - 1
        columns = _sessions(log, lengths, rng)
        users = int(np.searchsorted(lengths.cumsum(), left)) + 1
        lengths = lengths[:users]
        kept = int(lengths.sum())
        yield np.repeat(np.arange(first, first + len(lengths)), lengths), *(column[:kept] for column in columns)
        first, left = first + len(lengths), left - kept


def _sessions(log: Log, lengths: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Items and times of users with so many events, one user after another."""
    total, groups = int(lengths.sum()), log.groups
    begins = np.zeros(total, bool)
    begins[lengths.cumsum()[:-1]] = begins[0] = True
    opens = begins | (rng.random(total) < 0.25)  # a session
    session = opens.cumsum() - 1
    # a power law over topics, too: half of a user's sessions are of the topic of their first
    user = begins.cumsum() - 1
    drawn = _power(rng.random(session[-1] + 1), groups, 0.5)
    own = drawn[session[np.flatnonzero(begins)]][user[np.flatnonzero(opens)]]
    topic = np.where(rng.random(len(drawn)) < 0.5, own, drawn)[session]
    size = (log.items - topic - 1) // groups + 1  # items of the topic: topic, topic + groups, ..
    starts = opens | (rng.random(total) >= log.follow)  # a run
    place = np.flatnonzero(starts)
    run = starts.cumsum() - 1
    rank = (_power(rng.random(len(place)), size[place], log.exponent)[run] + np.arange(total) - place[run]) % size
    # from an hour to months between sessions, minutes within one
    gaps = np.where(opens, 3600 + rng.exponential(2e6, total), 10 + rng.exponential(200, total)).astype(np.int64)
    elapsed = gaps.cumsum()
    first = np.flatnonzero(begins)
    starts_at = 1_500_000_000 + rng.integers(0, 60_000_000, len(first))
    return 1 + topic + rank * groups, elapsed + (starts_at - elapsed[first])[user]


def _power(uniform: np.ndarray, size: np.ndarray | int, exponent: float) -> np.ndarray:
    """Ranks from 0 to size - 1, rank r with a probability near (r + 1)^-exponent, by the inverse of its integral."""
    inverse = 1 - exponent
    span = np.asarray(size + 1, dtype=np.float64) ** inverse - 1
    return np.minimum((span * uniform + 1) ** (1 / inverse) - 1, size - 1).astype(np.int64)


def texts(log: Log) -> Iterator[tuple[str, str, str]]:
    """Title, categories and brand of items 1, 2, .."""
    for item in range(log.items):
        topic, rank = item % log.groups, item // log.groups
        mixed = (item * 2654435761 + log.seed) % 2**32
        thing, use = _THINGS[topic % len(_THINGS)], _USES[topic // len(_THINGS) % len(_USES)]
        tone, form = _TONES[mixed % 12], _FORMS[mixed // 12 % 10]
        stuff, maker = _STUFFS[mixed // 120 % 10], _MAKERS[mixed // 1200 % 12]
        title = f"{maker} {form} {tone} {stuff} {thing} for {use}, model {rank + 1}"
        yield title, f"{use} {thing}s {stuff}", maker


def write(log: Log, data_path: str | Path, name: str) -> Path:
    """Write ``name.inter`` and ``name.item`` into ``data_path/name``, and return that folder.

    Raises:
        InputError: the disk is full; no half of a file is left.
    """
    folder = Path(data_path) / name
    with whole_file(folder / f"{name}.inter") as file:
        file.write(b"user_id:token\titem_id:token\ttimestamp:float\n")
        for users, items, times in events(log):
            rows = zip(users.tolist(), items.tolist(), times.tolist())
            file.write("".join(map("u%d\ti%d\t%d\n".__mod__, rows)).encode())
    with whole_file(folder / f"{name}.item") as file:
        file.write(b"item_id:token\ttitle:token_seq\tcategories:token_seq\tbrand:token_seq\n")
        rows = ("i{}\t{}\t{}\t{}\n".format(number, *columns) for number, columns in enumerate(texts(log), 1))
        for part in iter(lambda: "".join(itertools.islice(rows, 100_000)), ""):
            file.write(part.encode())
    return folder


def main(arguments: list[str]) -> None:
    """The command ``generate``."""
    parser = argparse.ArgumentParser(prog="python -m speed generate", description=__doc__)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--length", type=int, default=10, help="mean events of a user, above 5")
    parser.add_argument("--data_path", default="dataset", help="folder of data sets (default: dataset)")
    parser.add_argument("--dataset", help="name of the data set (default: synthetic-EVENTS-ITEMS)")
    given = parser.parse_args(arguments)
    log = Log(given.events, given.items, given.seed, given.length)
    print(write(log, given.data_path, given.dataset or f"synthetic-{log.events}-{log.items}"))
