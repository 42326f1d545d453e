"""The best items that a user does not have."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from recbole_stream.data.seen import Seen

__all__ = ["rank_unseen"]


def rank_unseen(
    search: Callable[[Tensor, int], tuple[Tensor, Tensor]],
    histories: Tensor,
    seen: Seen,
    top: int,
    width: int,
    most: int,
) -> tuple[Tensor, Tensor]:
    """What a search finds, without what is seen; searched wider for those histories of which too little is left.

    A history's result depends on it and its own items alone, not on those that are searched with it.

    Args:
        search: gives the best items of histories and their scores, as many as asked for, best first; 0 is no item.
        histories: item ids [B, L].
        seen: of the B histories.
        top: items wanted.
        width: of the first search, at least ``top``.
        most: items of the catalogue.

    Returns:
        items [B, top] and scores [B, top]; 0 and -inf where the catalogue has no more unseen ones.
    """
    items = torch.zeros(len(histories), top, dtype=torch.long, device=histories.device)
    scores = torch.full(items.shape, -torch.inf, device=histories.device)
    rows = torch.arange(len(histories), device=histories.device)
    while len(rows):
        found, values = search(histories[rows], min(width, most))
        values = values.masked_fill(seen.take(rows).contains(found) | (found == 0), -torch.inf)
        best, order = values.topk(min(top, found.shape[1]), 1)
        items[rows, : best.shape[1]] = found.gather(1, order).masked_fill(best == -torch.inf, 0)
        scores[rows, : best.shape[1]] = best
        if width >= most:
            break
        rows, width = rows[(items[rows] > 0).sum(1) < top], 2 * width
    return items, scores
