"""Events that came after the training: ``python -m recbole_stream update MODEL events.csv``.

They are added to what the model looks up (transitions, popularity) and to what is known of its users. Nothing is trained.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from recbole_stream.atomic import parse_numbers
from recbole_stream.data.scan import UNITS
from recbole_stream.data.sources import read_source
from recbole_stream.data.table import column_of
from recbole_stream.errors import InputError
from recbole_stream.model.lookup import Transitions
from recbole_stream.model.pointer import Pairs
from recbole_stream.serving.folder import Parts, check_output, read_model, write_model

__all__ = ["Later", "arguments", "command", "update"]

_PAIRS = ("transitions.rows", "transitions.columns", "transitions.counts")
_ONE_WAY = "transitions.one_way"


@dataclass(frozen=True)
class Later:
    """What became of the events of a table.

    Attributes:
        added: events that the model has now.
        known: events that it had before, which count once.
        unknown: events with items that it does not know, which are left out.
        users: users who had events; new_users: those of them who were new.
    """

    added: int
    known: int
    unknown: int
    users: int
    new_users: int

    def __str__(self) -> str:
        return (
            f"{self.added:,} events of {self.users:,} users ({self.new_users:,} of them new) were added; {self.known:,} "
            f"were known, {self.unknown:,} are of items that the model does not know."
        )


def update(parts: Parts, table: pd.DataFrame) -> tuple[Parts, Later]:
    """A model that knows of later events.

    An event is new where its user is, where its time is after the last event that is known of its user, or where it is of
    that same time and of an item that the user does not have. All others count as known and change nothing, so that a
    table may begin before the model ends, and a second time adds nothing. A model that was exported without its users
    cannot tell: to it all events are of new users.

    A new event is to transitions what a target of the training is: it is counted with the items before it, those
    that were known included, by the window, the decay and the weight of the way back that the model was trained with.

    Args:
        parts: the model; left as it is.
        table: a row an event, columns of strings: user, item and time by usual names. The time is in the unit of the data
            set, or a date where that is in seconds since 1970.

    Raises:
        InputError: a column is missing, a cell of it is empty or no time, or the times are of another unit.
    """
    if "last" not in parts.users:
        raise InputError("The model does not say when its users' last events were: export it again.")
    events = _events(parts, table)
    items = parts.items["item"].astype(str)
    number = pd.Series(np.arange(1, len(items) + 1), index=items)
    events["item"] = events["item"].map(number)
    unknown = events["item"].isna()
    events = events[~unknown].astype({"item": np.int64})
    users = {
        str(user): (np.asarray(own, np.int64), float(last))
        for user, own, last in zip(parts.users["user"], parts.users["items"], parts.users["last"])
    }
    histories: list[np.ndarray] = []
    starts: list[int] = []  # how much of each of these histories was known
    there, known = len(users), 0
    for user, rows in events.groupby("user", sort=False):
        own, last = users.get(user, (np.empty(0, np.int64), -np.inf))
        times, had = rows["time"].to_numpy(), rows["item"].to_numpy()
        new = (times > last) | ((times == last) & ~np.isin(had, own))
        known += int((~new).sum())
        if new.any():
            histories.append(np.concatenate([own, had[new]]))
            starts.append(len(own))
            users[user] = histories[-1], float(times[-1])
    added = sum(map(len, histories)) - sum(starts)
    later = Later(added, known, int(unknown.sum()), len(histories), len(users) - there)
    tensors = dict(parts.tensors)
    if "transitions.rows" in tensors and added:
        tensors |= _sum(tensors, _pairs(parts, histories, starts), len(items) + 1)
    if "popularity" in tensors and added:
        # a user's first event is no target, here as in the training
        targets = np.concatenate([history[max(start, 1) :] for history, start in zip(histories, starts)])
        counts = torch.from_numpy(np.bincount(targets, minlength=len(items) + 1))
        tensors["popularity"] = tensors["popularity"] + counts
    known_now = {
        "user": list(users),
        "items": [own.tolist() for own, _ in users.values()],
        "last": [last for _, last in users.values()],
    }
    return Parts(
        parts.config, tensors, parts.items, pd.DataFrame(known_now), f"{parts.card.rstrip()}\n\n{later}\n"
    ), later


def _events(parts: Parts, table: pd.DataFrame) -> pd.DataFrame:
    """The columns user, item and time [n], by time; equal times keep their order."""
    name = "The table of events"
    columns = {role: column_of(name, list(table.columns), role) for role in ("user", "item", "time")}
    if not len(table):
        raise InputError("The table of events has no rows: give at least one event.")
    times = parse_numbers(table[columns["time"]].astype(str).tolist())
    for role in ("user", "item"):
        empty = table[columns[role]].astype(str).str.strip() == ""
        if empty.any():
            raise InputError(f"Row {int(empty.argmax()) + 1} of the events has no {role}: fill it in, or leave it out.")
    wrong = times.empty | times.words
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"Row {row + 1} of the events has the time {table[columns['time']].iloc[row]!r}, which is neither a number "
            "nor a date: correct it."
        )
    ours, theirs = _unit(times.values), _unit(parts.users["last"].to_numpy(np.float64))
    if len(parts.users) and ours != theirs:
        raise InputError(
            f"The times of the events are {ours or 'no Unix times'}, and those of the model are "
            f"{theirs or 'no Unix times'}: write them alike."
        )
    frame = {role: table[columns[role]].astype(str).str.strip() for role in ("user", "item")}
    return pd.DataFrame(frame).assign(time=times.values).sort_values("time", kind="stable")


def _unit(times: np.ndarray) -> str | None:
    middle = float(np.median(times)) if len(times) else 0.0
    return next((unit for unit, (low, high) in UNITS.items() if low <= middle < high), None)


def _pairs(parts: Parts, histories: list[np.ndarray], starts: list[int]) -> dict[str, Tensor]:
    """What the new events count as, as those tensors of a model that hold its pairs."""
    keys = parts.config["keys"]
    window = min(keys["lookup_window"], parts.config["longest"])
    ends = np.concatenate([np.arange(start, len(own)) for own, start in zip(histories, starts)])
    base = np.cumsum([0, *map(len, histories)])[:-1].repeat([len(own) - s for own, s in zip(histories, starts)])
    flat = torch.from_numpy(np.concatenate(histories))
    lengths = torch.from_numpy(np.minimum(ends, window))
    targets = torch.from_numpy(base + ends)
    place = torch.arange(window)
    before = targets[:, None] - lengths[:, None] + place
    prefixes = flat[before.clamp(max=len(flat) - 1)].masked_fill(place >= lengths[:, None], 0)  # [N, window]
    settings = {"window": window} | {name: keys[f"lookup_{name}"] for name in ("decay", "backward", "recency")}

    def counted(**changes: float) -> Transitions:
        return Transitions(prefixes, lengths, flat[targets], len(parts.items) + 1, **(settings | changes))

    transitions = counted()
    found = dict(zip(_PAIRS, transitions.pairs()))
    if _ONE_WAY in parts.tensors:
        found[_ONE_WAY] = Pairs.counted(transitions, counted).one_way
    return found


def _sum(old: Mapping[str, Tensor], new: Mapping[str, Tensor], n_items: int) -> dict[str, Tensor]:
    """Two tables of pairs as one, sorted by rows and columns."""
    rows, columns, *counts = (torch.cat([old[name], values]) for name, values in new.items())
    keys, inverse = (rows * n_items + columns).unique(return_inverse=True)
    summed = [torch.zeros(len(keys), *values.shape[1:]).index_add_(0, inverse, values) for values in counts]
    return dict(zip(new, [keys // n_items, keys % n_items, *summed]))


def arguments(parser: argparse.ArgumentParser) -> None:
    """What the command may be given."""
    parser.add_argument("model", type=Path, help="folder of a model that export wrote")
    parser.add_argument("events", type=Path, help="CSV, Parquet or JSON lines: user, item, time")
    parser.add_argument("--output", type=Path, help="folder of the new model, which is made (default: MODEL itself)")


def command(options: argparse.Namespace) -> None:
    """Add the events, and say how many."""
    output = options.output or options.model
    parts = read_model(options.model)
    check_output(output, replace=options.output is None)
    updated, later = update(parts, read_source(options.events).table)
    write_model(output, updated, replace=options.output is None)
    print(f"{later} The model is in {output}.")
