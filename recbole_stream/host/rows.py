"""RecBole's augmentation for our models: without a row of items for each prefix, and without a loop over events.

RecBole writes out, for each event but a user's first, what came before it: MAX_ITEM_LIST_LENGTH items and as many
times, in Python. At ten million events that is gigabytes and many minutes. A history is a part of the user's events,
so that its place and its length say the same. RecBole's own models keep RecBole's way.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.utils.enum_type import FeatureType
from torch import Tensor

from recbole_stream.data.prefixes import Prefixes

__all__ = ["PrefixRows", "prefix_rows"]

_START = "history_start"


class PrefixRows(Interaction):
    """Rows of a split whose histories are read from the events: ``rows[NAME_list]`` is :class:`Prefixes`.

    Args:
        columns: name -> a value for each row.
        events: name of a list -> the events it is a part of [E].
        length_field: the column of histories' lengths; ``history_start`` says where they begin.
        width: MAX_ITEM_LIST_LENGTH.
    """

    def __init__(self, columns: dict[str, Tensor], events: dict[str, Tensor], length_field: str, width: int) -> None:
        super().__init__(columns)
        self.events, self.length_field, self.width = events, length_field, width

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            if index not in self.events:
                return self.interaction[index]
            starts, lengths = self.interaction[_START], self.interaction[self.length_field]
            return Prefixes(self.events[index], starts, lengths, self.width)
        if isinstance(index, list | np.ndarray | range):
            index = torch.as_tensor(np.asarray(index, dtype=None if len(index) else np.int64))
        columns = {name: column[index] for name, column in self.interaction.items()}
        return PrefixRows(columns, self.events, self.length_field, self.width)

    def __contains__(self, name: str) -> bool:
        return name in self.events or super().__contains__(name)

    def to_dense(self) -> Interaction:
        """The rows as RecBole has them, each with its lists."""
        columns = {name: column for name, column in self.interaction.items() if name != _START}
        return Interaction(columns | {name: self[name].to_dense() for name in self.events})


def prefix_rows(dataset: SequentialDataset) -> PrefixRows | None:
    """What RecBole's augmentation makes of a data set whose ``inter_feat`` holds events, which are sorted by user and time.

    Returns:
        None for events with lists, or with numbers that RecBole normalises: these are left to RecBole.
    """
    fields = [field for field in dataset.inter_feat if field != dataset.uid_field]
    plain = all(dataset.field2type[field] in (FeatureType.TOKEN, FeatureType.FLOAT) for field in fields)
    if not plain or set(fields) & set(dataset.config["numerical_features"] or ()):
        return None
    dataset._aug_presets()
    dataset._check_field("uid_field", "time_field")
    dataset.sort(by=[dataset.uid_field, dataset.time_field], ascending=True)
    events, width = dataset.inter_feat, dataset.config["MAX_ITEM_LIST_LENGTH"]
    users = events[dataset.uid_field].numpy()
    first = np.flatnonzero(np.diff(users, prepend=-1))
    before = np.arange(len(users)) - np.repeat(first, np.diff(np.append(first, len(users))))
    rows = torch.from_numpy(np.flatnonzero(before))
    lengths = torch.from_numpy(before)[rows].clamp(max=width)
    columns = {field: events[field][rows] for field in events}
    columns |= {dataset.item_list_length_field: lengths, _START: rows - lengths}
    lists = {getattr(dataset, f"{field}_list_field"): events[field] for field in fields}
    return PrefixRows(columns, lists, dataset.item_list_length_field, width)
