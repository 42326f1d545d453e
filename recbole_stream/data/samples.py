"""Training samples as tensors, and batches of similar length."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.data.prefixes import Prefixes
from recbole_stream.data.seen import Seen

__all__ = ["Batch", "Samples", "sequence_ends", "trim", "whole_sequences"]

_ROWS = 1 << 20  # samples that are written out at once


def trim(histories: Tensor) -> Tensor:
    """Histories [B, L] without the columns that are padding in all of them, but for one."""
    return histories[:, : max(1, int((histories > 0).sum(1).max()))]


@dataclass
class Batch:
    """Samples of one optimiser step: all of them, or those that fall to this one of several processes.

    Attributes:
        histories: item ids [B, L]; 0 is padding, on the right; L is the longest of the batch.
        targets: the next item [B].
        rows: numbers of the samples [B].
        part: where they stand among all samples of the step.
        whole: how many those are, at least B.
        draws: on the CPU, in the same state in all processes; torch's own where there is none.
        seen: what is left out of their rankings; None where nothing is.
    """

    histories: Tensor
    targets: Tensor
    rows: Tensor
    part: slice = field(default_factory=lambda: slice(None))
    whole: int = 0
    draws: torch.Generator | None = None
    seen: Seen | None = None

    def __post_init__(self) -> None:
        self.whole = self.whole or len(self.rows)

    @property
    def shared(self) -> bool:
        """Whether other processes have other samples of this step."""
        return self.whole > len(self.rows)

    def uniform(self, *shape: int) -> Tensor:
        """Random numbers from [0, 1) for each sample, [B, *shape].

        Every process draws for all samples of the step, and every device draws on the CPU: all get the same numbers.
        """
        drawn = torch.rand(self.whole, *shape, generator=self.draws)[self.part]
        return drawn.to(self.rows.device, non_blocking=True)


@dataclass
class Samples:
    """All (history, next item) pairs of a split.

    Attributes:
        histories: item ids [N, L_max], right-padded with 0; a tensor, or read from the events.
        lengths: items in each history [N].
        targets: the next item [N].
        seen: what is left out of the rankings of all; None where nothing is.
    """

    histories: Tensor | Prefixes
    lengths: Tensor
    targets: Tensor
    seen: Seen | None = None

    # batches are cut from pools of this many, sorted by length: little padding, still random
    POOL = 64

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Samples:
        """Histories and targets on one device; a whole benchmark set is some tens of MB.

        Lengths stay on the CPU, where batches are planned, so that a step never waits for the device.
        """
        seen = None if self.seen is None else self.seen.to(device)
        return Samples(self.histories.to(device), self.lengths.cpu(), self.targets.to(device), seen)

    def take(self, rows: Tensor) -> Samples:
        """Some of the samples; ``rows`` on the device of the targets, which is the CPU."""
        histories = self.histories.take(rows) if isinstance(self.histories, Prefixes) else self.histories[rows]
        return Samples(histories, self.lengths[rows], self.targets[rows], self.seen and self.seen.take(rows))

    def batch(self, rows: Tensor, part: slice = slice(None), draws: torch.Generator | None = None) -> Batch:
        """The ``part`` of the samples ``rows`` (on the CPU), trimmed to the longest history in it."""
        whole, rows = len(rows), rows[part]
        longest = int(self.lengths[rows].max())
        rows = rows.to(self.targets.device, non_blocking=True)
        seen = None if self.seen is None else self.seen.take(rows)
        return Batch(self.histories[rows, :longest], self.targets[rows], rows, part, whole, draws, seen)

    def ordered(self, batch_size: int, rows: Tensor | None = None) -> list[Batch]:
        """Every sample once, or every one of ``rows``, shortest first: for passes in which the order does not matter."""
        rows = torch.arange(len(self)) if rows is None else rows
        order = rows[self.lengths[rows].argsort(stable=True)]
        return [self.batch(some) for some in order.split(batch_size) if len(some)]

    def shuffled(self, batch_size: int, seed: int) -> list[Tensor]:
        """The rows of one epoch's batches, of similar length each, in random order.

        Args:
            batch_size: samples a batch; the last one may be smaller.
            seed: everything random here follows from it, so that an epoch can be repeated.
        """
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        batches: list[Tensor] = []
        for pool in order.split(batch_size * self.POOL):
            pool = pool[self.lengths[pool].argsort(stable=True)]
            batches += pool.split(batch_size)
        return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def sequence_ends(samples: Samples) -> Tensor:
    """Of samples that are the prefixes of sequences, one after another: the row of each one's longest prefix, [N]."""
    histories, lengths, width = samples.histories, samples.lengths, samples.histories.shape[1]
    goes_on = torch.zeros(len(samples), dtype=torch.bool)  # whether the next row is of the same sequence
    for rows in torch.arange(len(samples) - 1).split(_ROWS):
        whole = F.pad(histories[rows], (0, 1))  # the history and its target [R, L_max + 1]
        whole.scatter_(1, lengths[rows, None].to(whole.device), samples.targets[rows, None])
        full = (lengths[rows] == width).to(whole.device)
        shifted = torch.where(full[:, None], whole[:, 1:], whole[:, :-1])  # what the next prefix would be
        same = (shifted == histories[rows + 1]).all(1).cpu()
        goes_on[rows] = same & (lengths[rows + 1] == (lengths[rows] + 1).clamp(max=width))
    row = torch.arange(len(samples))
    return torch.where(goes_on, len(samples), row).flip(0).cummin(0).values.flip(0)


def whole_sequences(samples: Samples) -> Samples:
    """Of samples that are the prefixes of sequences, one after another, the fewest that hold every target once.

    A sequence no longer than L_max + 1 is left with its longest prefix. Of a longer one, whose prefixes hold the latest
    L_max items alone, every L_max-th prefix is left, counted from the longest: a model that learns all positions of a
    history then learns every item of the sequence once, with up to L_max items before it.
    """
    ends, row, width = sequence_ends(samples), torch.arange(len(samples)), samples.histories.shape[1]
    rows = row[(ends - row) % width == 0]
    return samples.take(rows)
