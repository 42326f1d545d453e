"""Views that are looked up: items that followed the history's items in training, and items with similar texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Content", "Transitions", "log_shares", "recency_weights"]

# added to the share of transitions before the logarithm: the value of an item that never followed the history's items
_UNSEEN = 1e-3


def recency_weights(histories: Tensor, decay: float) -> Tensor:
    """Weight of each item of a history: 1 for the latest, ``decay`` for the one before, ..; 0 at padding. [B, L]."""
    lengths = (histories > 0).sum(1, keepdim=True)
    age = lengths - 1 - torch.arange(histories.shape[1], device=histories.device)
    return (decay ** age.clamp(min=0).float()) * (histories > 0)


def log_shares(shares: Tensor) -> Tensor:
    """The logarithm of shares of transitions, finite where there were none."""
    return (shares + _UNSEEN).log()


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
    """

    def __init__(
        self,
        histories: Tensor,
        lengths: Tensor,
        targets: Tensor,
        n_items: int,
        window: int,
        decay: float,
        backward: float,
        recency: float,
    ) -> None:
        super().__init__()
        self.n_items, self.recency = n_items, recency
        before, after, weights = [], [], []
        for distance in range(1, min(window, histories.shape[1]) + 1):
            # the last `distance`-th item of every history that is long enough, and what came next
            rows = (lengths >= distance).nonzero()[:, 0]
            before.append(histories[rows, lengths[rows] - distance])
            after.append(targets[rows])
            weights.append(torch.full((len(rows),), decay ** (distance - 1)))
        start, end, weight = torch.cat(before), torch.cat(after), torch.cat(weights)
        if backward:
            start, end, weight = (
                torch.cat([start, end]),
                torch.cat([end, start]),
                torch.cat([weight, backward * weight]),
            )
        keys, inverse = (start * n_items + end).unique(return_inverse=True)
        counts = torch.zeros(len(keys)).index_add_(0, inverse, weight)
        rows, columns = keys // n_items, keys % n_items
        sums = torch.zeros(n_items).index_add_(0, rows, counts)
        # compressed rows: those of item i are first[i] .. first[i + 1]
        self.register_buffer(
            "first", F.pad(torch.bincount(rows, minlength=n_items).cumsum(0), (1, 0)), persistent=False
        )
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("shares", counts / sums[rows], persistent=False)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L] -> share of what followed (or came before) their items, [B, n_items]; sums to 1 or is 0."""
        weights = recency_weights(histories, self.recency).flatten()
        items = histories.flatten()
        starts = self.first[items]
        counts = (self.first[items + 1] - starts) * (weights > 0)
        owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
        place = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner] + starts[owner]
        found = torch.zeros(len(histories) * self.n_items, device=histories.device)
        cells = owner // histories.shape[1] * self.n_items + self.columns[place]
        found.index_add_(0, cells, weights[owner] * self.shares[place])
        found = found.view(len(histories), self.n_items)
        return found / found.sum(1, keepdim=True).clamp(min=1e-9)


class Content(nn.Module):
    """Cosine between items' texts and the texts of a history's latest items.

    Args:
        text: embeddings [n_items + 1, D], row 0 unused.
        recency: as in :class:`Transitions`.
    """

    def __init__(self, text: Tensor, recency: float) -> None:
        super().__init__()
        self.recency = recency
        unit = F.normalize(text - text[1:].mean(0), dim=-1)
        unit[0] = 0
        self.register_buffer("unit", unit, persistent=False)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L] -> the sum of the cosines with their items, each weighted by recency, [B, n_items + 1]."""
        weights = recency_weights(histories, self.recency)
        return (self.unit[histories] * weights[..., None]).sum(1) @ self.unit.T
