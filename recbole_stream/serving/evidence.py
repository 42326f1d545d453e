"""What of a history speaks for an item: numbers that can be looked up, as tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_stream.model.lookup import Transitions

__all__ = ["Evidence", "followed", "mid_ranks"]


@dataclass
class Evidence:
    """Of B histories of L items and C items for each; None is what the model has no knowledge of.

    Attributes:
        times, shares: of :func:`followed`, [B, L, C].
        weights: of the history's items by recency [B, L].
        cosines: of the texts [B, L, C].
        ranks, chances: of the items by the state alone [B, C].
        codes, log_probs: of the items' tokens [B, C, m].
    """

    times: Tensor | None = None
    shares: Tensor | None = None
    weights: Tensor | None = None
    cosines: Tensor | None = None
    ranks: Tensor | None = None
    chances: Tensor | None = None
    codes: Tensor | None = None
    log_probs: Tensor | None = None


def followed(transitions: Transitions, histories: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
    """How often items followed those of a history in the training sequences.

    Args:
        transitions: their memory.
        histories: item ids [B, L].
        items: ids [B, C].

    Returns:
        weighted counts [B, L, C] (a direct follower counts 1) and their shares of all that is counted for the history's
        item [B, L, C]; 0 at padding.
    """
    before, n_items = histories.flatten(), transitions.n_items
    owner, place = transitions.entries(before)
    keys, order = (owner * n_items + transitions.columns[place]).sort()
    # one more than any key, so that there is a place for every item
    keys = torch.cat([keys, keys.new_tensor([len(before) * n_items])])
    counts = torch.cat([transitions.counts[place][order], transitions.counts.new_zeros(1)])
    rows = torch.arange(len(before), device=before.device).view(*histories.shape, 1)
    wanted = rows * n_items + items[:, None]
    found = torch.searchsorted(keys, wanted)
    times = counts[found] * (keys[found] == wanted)
    return times, times / transitions.sums[histories].clamp(min=1e-9)[..., None]


def mid_ranks(scores: Tensor, items: Tensor) -> Tensor:
    """Places of items [B, C] among all by their scores [B, n_items + 1], the best at 1: [B, C].

    Items of equal scores share the place in their middle, so that an item among 99 equal ones is at 50. The padding
    item, number 0, has no place.
    """
    scores = scores[:, 1:].contiguous()
    own, rising = scores.gather(1, items - 1), scores.sort(1).values
    above = scores.shape[1] - torch.searchsorted(rising, own, right=True)
    equal = scores.shape[1] - torch.searchsorted(rising, own) - above
    return above + (equal + 1) / 2
