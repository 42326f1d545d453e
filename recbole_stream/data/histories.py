"""Histories as the models expect them: item ids with 0 as padding on the right, the latest items only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["padded", "right_padded"]


def padded(rows: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Tensor:
    """Lists of item ids, at least one -> [B, L], 0 as padding on the right."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=torch.long, device=device)


def right_padded(histories: Tensor, longest: int) -> Tensor:
    """Move padding to the right, and keep the latest items: item ids [B, L] -> [B, min(L, longest)].

    Args:
        histories: in time order, 0 as padding anywhere.
        longest: items kept of each.
    """
    items = histories.gather(1, (histories == 0).long().argsort(dim=1, stable=True))
    first = ((items > 0).sum(1) - longest).clamp(min=0)
    return items.gather(1, first[:, None] + torch.arange(min(longest, items.shape[1]), device=items.device))
