"""What RecBole's metrics are computed from, as its collector would give it, from lists of items and from scores."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["hits_of", "mean_ranks"]


def hits_of(lists: Tensor, targets: Tensor) -> Tensor:
    """Which item of each list is the target, and the number of targets, which is 1 ("rec.topk").

    Args:
        lists: item ids, best first [U, k].
        targets: item ids [U].

    Returns:
        [U, k + 1], int.
    """
    return torch.cat([lists == targets[:, None], torch.ones_like(targets, dtype=torch.bool)[:, None]], 1).int()


def mean_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Where the target stands among all items ("rec.meanrank", for GAUC).

    Args:
        scores: of all items [U, n_items]; -inf where an item is not ranked, such as the padding item.
        targets: item ids [U].

    Returns:
        [U, 3] in float64: the target's rank, from 1, which is the mean over all items of the same score; how many items
        are ranked; the number of targets, which is 1.
    """
    own = scores.gather(1, targets[:, None])
    better, equal = (scores > own).sum(1), (scores == own).sum(1)
    ranked = (scores > -torch.inf).sum(1)
    return torch.stack([better + (equal + 1) / 2, ranked, torch.ones_like(ranked)], 1).double()
