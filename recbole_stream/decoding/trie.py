"""The prefixes of all existing semantic IDs, as tensors."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Trie"]


class Trie(nn.Module):
    """All prefixes of the items' IDs, one array of nodes a depth.

    Nodes of a depth are numbered in lexicographic order of their prefixes, so the
    children of a node are neighbours: node ``v`` at depth d has the children
    ``first[d][v] .. first[d][v + 1] - 1`` at depth d + 1, and ``code[d]`` names the
    last code of each node at depth d + 1. A node at depth m is an item. With 32-bit
    numbers that is at most 8 m + 8 bytes an item.

    Args:
        codes: semantic IDs [n_items, m], all different; row i is item i + 1 (0 is padding).

    Raises:
        ValueError: if two items share an ID.
    """

    def __init__(self, codes: Tensor) -> None:
        super().__init__()
        codes = codes.cpu().numpy()
        n_items, self.levels = codes.shape
        order = np.lexsort(codes.T[::-1])
        ordered = codes[order]
        changed = np.zeros(n_items, bool)
        changed[0] = True
        parents = np.zeros(1, np.int64)  # first item (in order) of each node of the depth above
        self.widest: list[int] = []  # most children of any node, per depth
        self.nodes: list[int] = []  # nodes at depth 1 .. m
        for depth in range(self.levels):
            changed[1:] |= ordered[1:, depth] != ordered[:-1, depth]
            starts = np.flatnonzero(changed)
            first = np.append(np.searchsorted(starts, parents), len(starts))
            self.register_buffer(f"first_{depth}", torch.from_numpy(first.astype(np.int32)), persistent=False)
            code = torch.from_numpy(ordered[starts, depth].astype(np.int32))
            self.register_buffer(f"code_{depth}", code, persistent=False)
            self.widest.append(int(np.diff(first).max()))
            self.nodes.append(len(starts))
            parents = starts
        if self.nodes[-1] != n_items:
            raise ValueError(f"{n_items - self.nodes[-1]} items share their semantic ID with another item.")
        self.register_buffer("items", torch.from_numpy((order + 1).astype(np.int32)), persistent=False)

    def find(self, codes: Tensor) -> Tensor:
        """The item that has an ID: codes [.., m] -> item [..], 0 where there is none."""
        node = torch.zeros_like(codes[..., 0])
        alive = torch.ones_like(node, dtype=torch.bool)
        for depth in range(self.levels):
            first, code = getattr(self, f"first_{depth}"), getattr(self, f"code_{depth}")
            low, end = first[node].long(), first[node + 1].long()
            wanted = codes[..., depth]
            # binary search among the children, whose codes rise
            high = end
            for _ in range(self.widest[depth].bit_length()):
                middle = (low + high) // 2
                below = (low < high) & (code[middle.clamp(max=len(code) - 1)] < wanted)
                low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
            node = low.clamp(max=len(code) - 1)
            alive &= (low < end) & (code[node] == wanted)
        return self.items[node].long() * alive

    def expand(self, depth: int, nodes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The children of nodes at ``depth`` (the root is node 0 at depth 0).

        Args:
            nodes: [B, W].

        Returns:
            children [B, W, C] (numbers at depth + 1), their codes [B, W, C] and which of them exist,
            where C is the largest number of children at this depth.
        """
        first, code = getattr(self, f"first_{depth}"), getattr(self, f"code_{depth}")
        start, end = first[nodes][..., None].long(), first[nodes + 1][..., None].long()
        children = start + torch.arange(self.widest[depth], device=nodes.device)
        exists = children < end
        children = torch.where(exists, children, start)
        return children, code[children].long(), exists

    def child(self, depth: int, nodes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """The child at a place of :meth:`expand`'s last dimension.

        Args:
            nodes: at ``depth``, [..].
            places: 0 .. C - 1, [..], of children that exist.

        Returns:
            children (numbers at depth + 1) and their codes, [..].
        """
        first, code = getattr(self, f"first_{depth}"), getattr(self, f"code_{depth}")
        children = first[nodes].long() + places
        return children, code[children].long()
