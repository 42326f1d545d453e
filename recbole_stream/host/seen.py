"""``leave_out_seen``: what a user had before is not recommended, by any sequential model, wherever it is ranked.

RecBole ranks sequential models over all items, those just bought included. On data without repeats that costs every
model, and not each the same. Its data loader can name items to leave out beside each batch, which it does for general
models alone; here it does for sequential ones too. A history in a batch holds the latest MAX_ITEM_LIST_LENGTH items,
so each row also says how many events its user had before, and the dataset keeps the events of all users.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_stream.data.seen import Seen
from recbole_stream.errors import InputError

__all__ = ["augment", "note_ready_histories", "seen_index", "seen_of"]

# columns of a dataset's rows: see ``Seen``
_START, _COUNT = "seen_start", "seen_count"


def augment(dataset: SequentialDataset) -> None:
    """RecBole's augmentation, one row for each event but a user's first, which also notes what came before each.

    Raises:
        InputError: candidates are sampled, of which none can be left out.
    """
    if not dataset.config["leave_out_seen"]:
        return dataset.data_augmentation()
    _check_mode(dataset)
    dataset.sort(by=[dataset.uid_field, dataset.time_field], ascending=True)  # as the augmentation does
    users, events = dataset.inter_feat[dataset.uid_field].numpy(), dataset.inter_feat[dataset.iid_field]
    _, first, counts = np.unique(users, return_index=True, return_counts=True)
    starts = np.repeat(first, counts)
    before = np.arange(len(users)) - starts
    dataset.data_augmentation()
    _note(dataset, events, starts[before > 0], before[before > 0])


def note_ready_histories(dataset: SequentialDataset) -> None:
    """The same for a data set whose files hold ready histories: what its earlier files and the row itself hold."""
    if not dataset.config["leave_out_seen"]:
        return
    _check_mode(dataset)
    features, part = dataset.inter_feat, np.repeat(np.arange(len(dataset.file_size_list)), dataset.file_size_list)
    users, targets = features[dataset.uid_field].tolist(), features[dataset.iid_field].tolist()
    lists = [row[row > 0].tolist() for row in features[dataset.iid_field + dataset.config["LIST_SUFFIX"]]]
    events: list[int] = []
    starts, counts = [], []
    had: dict[int, set[int]] = {}  # items of each user in earlier files
    now: dict[int, set[int]] = {}  # in the present one
    for row, user in enumerate(users):
        if row and part[row] > part[row - 1]:
            for other, items in now.items():
                had[other] = had.get(other, set()) | items
            now = {}
        own = had.get(user, set()).union(lists[row]) if part[row] else set()  # training ranks nobody
        starts.append(len(events))
        counts.append(len(own))
        events += sorted(own)
        now.setdefault(user, set()).update(lists[row], [targets[row]])
    _note(dataset, torch.tensor(events or [0]), np.array(starts), np.array(counts))


def _check_mode(dataset: SequentialDataset) -> None:
    mode = dataset.config["eval_args"]["mode"]
    sampled = [way for way in (mode.values() if isinstance(mode, Mapping) else [mode]) if way != "full"]
    if sampled:
        raise InputError(
            f"leave_out_seen needs a ranking of all items, but the mode of eval_args is {sampled[0]}: set it to full."
        )


def _note(dataset: SequentialDataset, events: Tensor, starts: np.ndarray, counts: np.ndarray) -> None:
    dataset.seen_events = events
    dataset.inter_feat.update(Interaction({_START: torch.from_numpy(starts), _COUNT: torch.from_numpy(counts)}))


def seen_of(dataset: SequentialDataset, rows: Interaction) -> Seen | None:
    """What is left out of the rankings of some rows of a dataset; None where nothing is."""
    if not dataset.config["leave_out_seen"] or _START not in rows:
        return None
    return Seen(dataset.seen_events, rows[_START], rows[_COUNT])


def seen_index(dataset: SequentialDataset, rows: Interaction) -> tuple[Tensor, Tensor] | None:
    """The same as RecBole wants it: numbers of rows and item ids, at which scores become -inf."""
    seen = seen_of(dataset, rows)
    return None if seen is None else seen.index()
