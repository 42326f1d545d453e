"""Histories that are parts of one array of events: read when asked for, not written out a row each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Prefixes"]

Rows: TypeAlias = Tensor | slice | list[int]


@dataclass
class Prefixes:
    """Histories [N, width], padded on the right with 0, of which only the places are kept.

    Some of them are had as from a tensor: ``prefixes[rows]``, ``prefixes[rows, :5]``, ``prefixes[rows, columns]`` are
    tensors, as is ``prefixes.to_dense()``, of all; a tensor has both, too.

    Attributes:
        events: what the histories hold, all users' one after another [E].
        starts: where each history begins [N].
        lengths: events in it [N], at most ``width``.
        width: columns.
    """

    events: Tensor
    starts: Tensor
    lengths: Tensor
    width: int

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.starts), self.width

    def to(self, device: torch.device | str) -> Prefixes:
        return Prefixes(self.events.to(device), self.starts.to(device), self.lengths.to(device), self.width)

    def take(self, rows: Tensor) -> Prefixes:
        """Some of the histories."""
        return Prefixes(self.events, self.starts[rows], self.lengths[rows], self.width)

    def to_dense(self) -> Tensor:
        """All of them written out, [N, width]."""
        return self[:]

    def __getitem__(self, index: Rows | tuple[Rows, Tensor | slice | int]) -> Tensor:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        starts, lengths = self.starts[rows], self.lengths[rows]
        if isinstance(columns, slice):
            columns = torch.arange(self.width, device=starts.device)[columns]
            starts, lengths = starts[:, None], lengths[:, None]
        inside = lengths > columns
        return self.events[torch.where(inside, starts + columns, 0)].masked_fill(~inside, 0)
