"""What users had before each sample: all of it, also what lies before the latest items that a model reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Seen"]

_CELLS = 1 << 26  # of [samples, items] at once


@dataclass
class Seen:
    """For each of N samples the items that the user had before it.

    Attributes:
        events: item ids of all users one after another, each user's in time [E].
        starts: where the user's first event is [N].
        counts: events before the sample [N].
    """

    events: Tensor
    starts: Tensor
    counts: Tensor

    def __len__(self) -> int:
        return len(self.starts)

    def to(self, device: torch.device | str) -> Seen:
        return Seen(self.events.to(device), self.starts.to(device), self.counts.to(device))

    def take(self, rows: Tensor) -> Seen:
        """Of some samples."""
        return Seen(self.events, self.starts[rows], self.counts[rows])

    def index(self) -> tuple[Tensor, Tensor]:
        """All pairs of a sample's number and one of its items, [P] twice."""
        rows = torch.repeat_interleave(torch.arange(len(self), device=self.counts.device), self.counts)
        place = torch.arange(len(rows), device=rows.device) - (self.counts.cumsum(0) - self.counts)[rows]
        return rows, self.events[self.starts[rows] + place]

    def contains(self, items: Tensor) -> Tensor:
        """Which of some items [N, C] the samples' users had, bool [N, C]."""
        width = int(max(self.events.max(), items.max())) + 1
        found = torch.empty_like(items, dtype=torch.bool)
        for rows in torch.arange(len(items), device=items.device).split(max(1, _CELLS // width)):
            table = torch.zeros(len(rows), width, dtype=torch.bool, device=items.device)
            table[self.take(rows).index()] = True
            found[rows] = table.gather(1, items[rows])
        return found
