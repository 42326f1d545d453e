"""Views that are looked up: items that followed the history's items in training, and items with similar texts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from recbole_stream.data.prefixes import Prefixes

__all__ = ["UNSEEN", "Content", "Followers", "Transitions", "find_sorted", "log_shares", "recency_weights"]

# added to the share of transitions before the logarithm: the value of an item that never followed the history's items
UNSEEN = 1e-3

_PAIRS = 1 << 24  # pairs of items that are counted at once


def recency_weights(histories: Tensor, decay: float) -> Tensor:
    """Weight of each item of a history: 1 for the latest, ``decay`` for the one before, ..; 0 at padding. [B, L]."""
    lengths = (histories > 0).sum(1, keepdim=True)
    age = lengths - 1 - torch.arange(histories.shape[1], device=histories.device)
    return (decay ** age.clamp(min=0).float()) * (histories > 0)


def log_shares(shares: Tensor) -> Tensor:
    """The logarithm of shares of transitions, finite where there were none."""
    return (shares + UNSEEN).log()


def find_sorted(keys: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Where numbers are among ascending ``keys`` [P], and whether they are there at all; both in the shape of ``wanted``."""
    place = torch.searchsorted(keys, wanted).clamp(max=max(0, len(keys) - 1))
    there = keys[place] == wanted if len(keys) else torch.zeros_like(wanted, dtype=torch.bool)
    return place, there


@dataclass
class Followers:
    """What followed (or came before) the items of B histories of L items each.

    Attributes:
        cells: row times the number of items plus item, ascending and each once [P].
        shares: the item's share in its row [P]; those of a row sum to 1.
        owner: of every pair that was found, its place among the B L items of the histories [E], ascending.
        place: the pair's place in the memory [E].
        inverse: its place in ``cells`` [E].
    """

    cells: Tensor
    shares: Tensor
    owner: Tensor
    place: Tensor
    inverse: Tensor

    def find(self, cells: Tensor) -> tuple[Tensor, Tensor]:
        """Where some cells are in ``cells``, and whether they are there at all; both in the shape given."""
        return find_sorted(self.cells, cells)


class Transitions(nn.Module):
    """Which items came after which within the training sequences, as a sparse matrix of weighted counts.

    An item that follows another at distance d adds ``decay^(d-1)``, at most ``window`` away; the opposite direction
    counts ``backward`` times as much. Rows are normalised to sum 1.

    Args:
        histories: of the training samples, item ids [N, L], 0 as padding on the right.
        lengths: items in each [N].
        targets: what came next [N]; with each prefix of a sequence once, each pair of its items counts once.
        n_items: rows and columns, the padding item 0 included.
        window, decay, backward: see above.
        recency: how much less an older item of the history says than the one after it.
        neighbours: so many of an item's pairs, those with the highest counts, are kept; 0 keeps all.

    The samples are gone through in parts: memory grows with the number of different pairs, not with that of all.
    """

    def __init__(
        self,
        histories: Tensor | Prefixes,
        lengths: Tensor,
        targets: Tensor,
        n_items: int,
        window: int,
        decay: float,
        backward: float,
        recency: float,
        neighbours: int = 0,
    ) -> None:
        super().__init__()
        self.n_items, self.recency = n_items, recency
        window = min(window, histories.shape[1])
        sums: list[sparse.csr_array] = []
        for rows in torch.arange(len(targets)).split(max(1, _PAIRS // (2 * window))):
            pairs = _pairs(histories, lengths, targets, rows, window, decay, backward)
            sums.append(_summed(*pairs, n_items))
            # only sums of like sizes are added up, so that no pair is copied in every round
            while len(sums) > 1 and 2 * sums[-1].nnz >= sums[-2].nnz:
                sums[-2:] = [sums[-2] + sums[-1]]
        while len(sums) > 1:
            sums[-2:] = [sums[-2] + sums[-1]]
        self._keep(*_pairs_of(sums[0], neighbours))

    @classmethod
    def of_counts(cls, rows: Tensor, columns: Tensor, counts: Tensor, n_items: int, recency: float) -> Transitions:
        """From weighted counts [P] of pairs of items [P], sorted by rows; undoes :meth:`pairs`."""
        lookup = cls.__new__(cls)
        nn.Module.__init__(lookup)
        lookup.n_items, lookup.recency = n_items, recency
        lookup._keep(rows, columns, counts)
        return lookup

    def pairs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Items, items that followed them, and the weighted counts of both, [P] each."""
        rows = torch.repeat_interleave(torch.arange(self.n_items, device=self.first.device), self.first.diff())
        return rows, self.columns.long(), self.counts

    def find(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """The places of pairs [N] among those that are kept, and whether they are kept at all [N]."""
        own, others, _ = self.pairs()
        return find_sorted(own * self.n_items + others, rows * self.n_items + columns)

    def counts_of(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The weighted counts of pairs [N], 0 where they are not kept."""
        place, there = self.find(rows, columns)
        return self.counts[place].masked_fill(~there, 0.0) if len(self.counts) else torch.zeros(len(rows))

    def _keep(self, rows: Tensor, columns: Tensor, counts: Tensor) -> None:
        # compressed rows: those of item i are first[i] .. first[i + 1]
        first = F.pad(torch.bincount(rows, minlength=self.n_items).cumsum(0), (1, 0))
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("columns", columns.int(), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("sums", torch.zeros(self.n_items).index_add_(0, rows, counts), persistent=False)

    def entries(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """All pairs that begin with some items [N]: which of these, and the pair's place in ``columns``, [P] each."""
        starts = self.first[items]
        counts = self.first[items + 1] - starts
        owner = torch.repeat_interleave(torch.arange(len(items), device=items.device), counts)
        place = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner] + starts[owner]
        return owner, place

    def followers(self, histories: Tensor) -> Followers:
        """What followed (or came before) the items of histories, item ids [B, L]."""
        weights = recency_weights(histories, self.recency).flatten()
        items = histories.flatten()
        owner, place = self.entries(items)  # the padding item has none
        row = owner // histories.shape[1]
        cells, inverse = (row * self.n_items + self.columns[place]).unique(return_inverse=True)
        shares = weights[owner] * (self.counts[place] / self.sums[items][owner])
        found = torch.zeros(len(cells), device=histories.device).index_add_(0, inverse, shares)
        whole = torch.zeros(len(histories), device=histories.device).index_add_(0, row, shares)
        return Followers(cells, found / whole[cells // self.n_items].clamp(min=1e-9), owner, place, inverse)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L] -> share of what followed (or came before) their items, [B, n_items]; sums to 1 or is 0."""
        followed = self.followers(histories)
        found = torch.zeros(len(histories) * self.n_items, device=histories.device)
        return found.index_put_((followed.cells,), followed.shares).view(len(histories), self.n_items)


def _pairs(
    histories: Tensor, lengths: Tensor, targets: Tensor, rows: Tensor, window: int, decay: float, backward: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of items of some samples, and what each counts: [P] each; an item that followed comes second."""
    before, after, weights = [], [], []
    for distance in range(1, window + 1):
        # the last `distance`-th item of every history that is long enough, and what came next
        long = rows[lengths[rows] >= distance]
        before.append(histories[long, lengths[long] - distance])
        after.append(targets[long])
        weights.append(torch.full((len(long),), decay ** (distance - 1)))
    start, end, weight = torch.cat(before), torch.cat(after), torch.cat(weights)
    if not backward:
        return start, end, weight
    return torch.cat([start, end]), torch.cat([end, start]), torch.cat([weight, backward * weight])


def _summed(start: Tensor, end: Tensor, weight: Tensor, n_items: int) -> sparse.csr_array:
    """Counts of equal pairs added up, [n_items, n_items]."""
    keys, inverse = (start * n_items + end).unique(return_inverse=True)
    counts = torch.zeros(len(keys)).index_add_(0, inverse, weight)
    first = F.pad(torch.bincount(keys // n_items, minlength=n_items).cumsum(0), (1, 0))
    return sparse.csr_array((counts.numpy(), (keys % n_items).int().numpy(), first.numpy()), (n_items, n_items))


def _pairs_of(counted: sparse.csr_array, neighbours: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and counts of the ``neighbours`` largest entries of each row, or of all, sorted by row and column."""
    lengths = np.diff(counted.indptr)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    columns, counts = counted.indices, counted.data
    if neighbours:
        order = np.lexsort((columns, -counts, rows))  # of equal counts the smaller item
        place = np.arange(len(rows)) - np.repeat(counted.indptr[:-1], lengths)
        kept = np.sort(order[place < neighbours])
        rows, columns, counts = rows[kept], columns[kept], counts[kept]
    return torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(counts)


class Content(nn.Module):
    """Cosine between items' texts and the texts of a history's latest items.

    Args:
        text: embeddings [n_items + 1, D], row 0 unused.
        recency: as in :class:`Transitions`.
        centre: what is taken off each embedding [D]; their mean by default. A catalogue that has grown keeps its first.
    """

    def __init__(self, text: Tensor, recency: float, centre: Tensor | None = None) -> None:
        super().__init__()
        self.recency = recency
        unit = F.normalize(text - (text[1:].mean(0) if centre is None else centre), dim=-1)
        unit[0] = 0
        self.register_buffer("unit", unit, persistent=False)

    def query(self, histories: Tensor) -> Tensor:
        """Item ids [B, L] -> the sum of their texts' unit vectors, each weighted by recency, [B, D]."""
        return (self.unit[histories] * recency_weights(histories, self.recency)[..., None]).sum(1)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L] -> the sum of the cosines with their items, each weighted by recency, [B, n_items + 1]."""
        return self.query(histories) @ self.unit.T
