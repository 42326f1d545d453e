"""What an update of the look-ups is worth: ``python -m experiments.later_events --dataset=ml-100k ...``.

The data set is split by time, for all users at once: STREAMRec trains with ``--stages=[match]`` on the first 80% of the
events, the next 10% are what ``update`` adds, and each of the last 10% is ranked after all that its user had before it.
The histories are the same with and without the update: what differs is what is looked up. Steps that are done already
are not done again.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.new_items import command_line, ranks_of, train, write_table
from experiments.runs import metrics
from recbole_stream.data.sources import read_source
from recbole_stream.errors import InputError
from recbole_stream.files import write_text
from recbole_stream.serving.folder import Parts
from recbole_stream.serving.later_events import update
from recbole_stream.serving.networks import build_ranker

__all__ = ["main", "measure", "split"]

TRAINED, UPDATED = 0.8, 0.9


def split(data: Path, output: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """Write a copy of a data set that ends at 80% of its events.

    Returns:
        all events by time, columns of strings; which part each belongs to [n]: 0 trained, 1 updated, 2 ranked. Events of
        one time are in one part.

    Raises:
        InputError: the times are positions within a user's events.
    """
    name, source = data.name, read_source(data / f"{data.name}.inter")
    times = source.table["timestamp"].astype(float).to_numpy()
    if times.max() < 1e8:
        raise InputError(f"{name} has positions for times, and so no date to split it at: name another data set.")
    parts = np.searchsorted(np.quantile(times, [TRAINED, UPDATED]), times)
    if not (output / name / f"{name}.inter").exists():
        lines = (data / f"{name}.inter").read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [lines[number - 1] for number in source.lines[parts == 0]]
        write_text(output / name / f"{name}.inter", "".join([lines[0], *kept]))
        shutil.copy(data / f"{name}.item", output / name)
    order = np.argsort(times, kind="stable")
    return source.table.iloc[order].reset_index(drop=True), parts[order]


def measure(before: Parts, events: pd.DataFrame, parts: np.ndarray) -> pd.DataFrame:
    """A line with and one without the update: metrics of the last events whose items the model knows."""
    after, later = update(before, events[parts == 1])
    print(later, flush=True)
    names = before.items["item"].tolist()
    known, had = set(names), {}
    histories, targets, unknown, first = [], [], 0, 0
    for user, item, part in zip(events["user_id"], events["item_id"], parts):
        own = had.setdefault(user, [])
        if part == 2 and item not in known:
            unknown += 1
        elif part == 2 and not own:
            first += 1
        elif part == 2:
            histories.append(own[-100:])
            targets.append(item)
        if item in known:
            own.append(item)
    print(f"{unknown} of the last events are of unknown items, {first} are the first of their users", flush=True)
    lines = []
    for name, model in (("without the update", before), ("with the update", after)):
        ranks = ranks_of(build_ranker(model.config, model.tensors), names, histories, targets)
        lines.append({"look-ups": name, "events": len(targets), **metrics(ranks)})
    return pd.DataFrame(lines)


def main() -> int:
    """Split, train, export, update, measure."""
    given, keys = command_line("later_events", __doc__, "of the training")
    try:
        events, parts = split(given.data_path / given.dataset, given.output)
    except InputError as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    before = train(given.dataset, given.output, given.output, given.seed, keys)
    lines = measure(before, events, parts)
    write_table(given.output / "later-events", lines)
    print(lines.to_markdown(index=False, floatfmt=".4f"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
