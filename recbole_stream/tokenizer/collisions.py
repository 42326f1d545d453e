"""Three ways to give every item an ID of its own (METHOD.md section 1, item 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from recbole_stream.errors import InputError

__all__ = ["Reassigned", "append_counter", "group_ids", "reassign", "sinkhorn"]

# distances(level, rows, codes of those rows [r, m]) -> [r, K_level]: what each row would pay for each code of the
# level (0-based), given its codes of the levels before.
Distances = Callable[[int, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Reassigned:
    """Codes of which no two rows are equal.

    Attributes:
        codes: int64 `[n, m]`.
        moved: rows whose codes changed.
        moved_prefix: those of them whose prefix had no free code left, so that an earlier level changed too.
    """

    codes: np.ndarray
    moved: int
    moved_prefix: int


def group_ids(codes: np.ndarray) -> np.ndarray:
    """Numbers the distinct rows of `[n, L]` codes, in lexicographic order: int64 `[n]`, all 0 for L = 0."""
    groups = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:
        # Renumbered at every level: a product of many codebook sizes would not fit 64 bits.
        _, groups = np.unique(groups * (int(column.max(initial=0)) + 1) + column, return_inverse=True)
    return groups


def reassign(codes: np.ndarray, codebook_sizes: tuple[int, ...], distances: Distances | None = None) -> Reassigned:
    """Moves items that collide to free codewords of the last level, at the least total distance per prefix.

    Of the items that share an ID the one nearest to it keeps it (the first
    one without `distances`), so exactly `n − distinct IDs` items move. Each
    prefix's movers and its free last codes are matched optimally (Hungarian
    algorithm). A prefix with more items than last codes cannot hold them all:
    its farthest movers go to the nearest prefix that has room, one level up,
    and take their nearest codes from there; a prefix is left only when full.
    Without `distances` a mover takes the smallest free code.

    Args:
        codes: int64 `[n, m]`, `0 <= codes[:, d] < codebook_sizes[d]`.
        codebook_sizes: K of each level.
        distances: see above; None where only codes are known.

    Raises:
        InputError: more items than IDs.
    """
    n, levels = codes.shape
    if n > math.prod(codebook_sizes):
        raise InputError(
            f"{n} items do not fit {levels} levels of {codebook_sizes} codes: raise `codebook_size` or the number of levels."
        )
    placed = codes.copy()
    if n == 0:
        return Reassigned(placed, 0, 0)
    pays = distances or _smallest_first(codebook_sizes)
    moving = _movers(codes, pays if distances else None)
    for level in range(levels):
        room = math.prod(codebook_sizes[level + 1 :])  # IDs below one prefix of this length
        prefixes = group_ids(placed[:, : level + 1])
        # Whose place at this level is in doubt: the movers of prefixes that hold more than they can.
        over = np.bincount(prefixes) > room
        parents = group_ids(placed[:, :level])
        doubtful = np.unique(parents[moving & over[prefixes]])
        if not len(doubtful):
            continue
        order = np.argsort(parents, kind="stable")
        starts = np.searchsorted(parents[order], doubtful)
        ends = np.searchsorted(parents[order], doubtful, side="right")
        for start, end in zip(starts, ends, strict=True):
            members = order[start:end]
            before = placed[members, level]
            _place(placed, members, moving, level, codebook_sizes[level], room, pays)
            if distances:
                _follow(placed, members[placed[members, level] != before], level + 1, pays)
    moved = (placed != codes).any(axis=1)
    moved_prefix = (placed[:, :-1] != codes[:, :-1]).any(axis=1)
    return Reassigned(placed, int(moved.sum()), int(moved_prefix.sum()))


def _movers(codes: np.ndarray, pays: Distances | None) -> np.ndarray:
    """True for all rows of an ID but the one that keeps it, bool `[n]`."""
    ids = group_ids(codes)
    colliding = np.flatnonzero(np.bincount(ids)[ids] > 1)
    moving = np.zeros(len(codes), dtype=bool)
    if len(colliding):
        moving[colliding] = True
        own = np.zeros(len(colliding))
        if pays is not None:
            for chunk in np.array_split(np.arange(len(colliding)), len(colliding) // 4096 + 1):
                rows = colliding[chunk]
                paid = pays(codes.shape[1] - 1, rows, codes[rows])
                own[chunk] = paid[np.arange(len(rows)), codes[rows, -1]]
        order = np.lexsort((colliding, own, ids[colliding]))  # by ID, then distance, then row
        first = np.r_[True, np.diff(ids[colliding[order]]) > 0]
        moving[colliding[order[first]]] = False
    return moving


def _place(
    placed: np.ndarray, members: np.ndarray, moving: np.ndarray, level: int, size: int, room: int, pays: Distances
) -> None:
    """Brings the items of one prefix of length `level` below `room` items per code of the next level, in place."""
    movers = members[moving[members]]
    free = room - np.bincount(placed[members[~moving[members]], level], minlength=size)  # [size]
    costs = pays(level, movers, placed[movers])  # [movers, size]
    if room == 1:
        open_codes = np.flatnonzero(free)
        chosen_rows, chosen = linear_sum_assignment(costs[:, open_codes])
        placed[movers[chosen_rows], level] = open_codes[chosen]
        return
    # Everyone asks for a code; a code takes its nearest as far as it has room, the rest ask again for an open one.
    wish = placed[movers, level].copy()
    waiting = np.arange(len(movers))
    while len(waiting):
        order = waiting[np.lexsort((waiting, costs[waiting, wish[waiting]], wish[waiting]))]
        asked, first, counts = np.unique(wish[order], return_index=True, return_counts=True)
        rank = np.arange(len(order)) - np.repeat(first, counts)  # place in the queue of its code
        accepted = rank < np.repeat(free[asked], counts)
        placed[movers[order[accepted]], level] = wish[order[accepted]]
        free[asked] -= np.minimum(counts, free[asked])
        waiting = np.sort(order[~accepted])
        open_codes = np.flatnonzero(free)
        if len(waiting):
            wish[waiting] = open_codes[costs[np.ix_(waiting, open_codes)].argmin(axis=1)]


def _follow(placed: np.ndarray, rows: np.ndarray, level: int, pays: Distances) -> None:
    """The rows take their nearest codes from `level` on, as their residuals have changed."""
    for below in range(level, placed.shape[1]):
        placed[rows, below] = pays(below, rows, placed[rows]).argmin(axis=1)


def _smallest_first(codebook_sizes: tuple[int, ...]) -> Distances:
    def pays(level: int, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        # Equal for all rows: a matching at the least total takes the smallest free codes.
        return np.broadcast_to(np.arange(codebook_sizes[level], dtype=np.float64), (len(rows), codebook_sizes[level]))

    return pays


def append_counter(codes: np.ndarray) -> tuple[np.ndarray, int]:
    """TIGER's way: one more level that counts the items of equal codes, 0, 1, 2 … in row order.

    Args:
        codes: int64 `[n, m − 1]`.

    Returns:
        codes `[n, m]` and the size of the counter level, that of the largest group.
    """
    groups = group_ids(codes)
    order = np.argsort(groups, kind="stable")
    counts = np.bincount(groups)
    counter = np.empty(len(codes), dtype=np.int64)
    counter[order] = np.arange(len(codes)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.column_stack([codes, counter]), int(counts.max())


def sinkhorn(distances: np.ndarray, epsilon: float = 0.003, iterations: int = 50) -> np.ndarray:
    """Soft assignment of n items to K codes in which every code gets its equal share (LC-Rec's last level).

    Distances are scaled to [−1, 1], as epsilon is relative to that range. The
    iteration runs on logarithms: `exp(−1 / .003)` is 0 in 64 bits.

    Args:
        distances: `[n, K]`.
        epsilon: temperature; towards 0 the plan is a hard assignment.
        iterations: of normalising columns, then rows.

    Returns:
        plan `[n, K]`: rows sum to 1, columns (after enough iterations) to n / K.
    """
    n, size = distances.shape
    low, high = distances.min(), distances.max()
    scaled = (2 * distances - high - low) / max(high - low, np.finfo(np.float32).tiny)
    plan = torch.from_numpy(np.asarray(-scaled / epsilon, dtype=np.float64))
    for _ in range(iterations):
        plan -= plan.logsumexp(dim=0, keepdim=True) - math.log(n / size)
        plan -= plan.logsumexp(dim=1, keepdim=True)
    return plan.exp_().numpy()
