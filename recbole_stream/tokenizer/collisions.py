"""Three ways to give every item an ID of its own: the paper (section 2.2.1) does not say how."""

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
    algorithm). Where a prefix has fewer free codes than movers, those that
    cost most go to the nearest prefix with room one level up (further up
    where there is none) and take their nearest free codes from there; they
    never push out items that fit. Without `distances` a mover takes the
    smallest free code.

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
            f"{n} items do not fit {levels} levels of {codebook_sizes} codes: "
            "raise `codebook_size` or the number of levels."
        )
    placed = codes.copy()
    pays = distances or _smallest_first(codebook_sizes)
    moving = _movers(codes, distances)
    settled, waiting = ~moving, np.flatnonzero(moving)
    for level in reversed(range(levels)):
        chosen = left = waiting
        for below in range(level, levels):
            rest = _choose_codes(placed, settled, chosen, below, codebook_sizes, pays)
            if below == level:  # below that level there is room for all that were let in
                left, chosen = rest, np.setdiff1d(chosen, rest)
        settled[chosen] = True
        waiting = left
    moved_prefix = (placed[:, :-1] != codes[:, :-1]).any(axis=1)
    return Reassigned(placed, int(moving.sum()), int(moved_prefix.sum()))


def _movers(codes: np.ndarray, distances: Distances | None) -> np.ndarray:
    """True for all rows of an ID but the one that keeps it, bool `[n]`."""
    ids = group_ids(codes)
    colliding = np.flatnonzero(np.bincount(ids)[ids] > 1)
    moving = np.zeros(len(codes), dtype=bool)
    if len(colliding):
        moving[colliding] = True
        own = np.zeros(len(colliding))
        if distances is not None:
            for chunk in np.array_split(np.arange(len(colliding)), len(colliding) // 4096 + 1):
                rows = colliding[chunk]
                paid = distances(codes.shape[1] - 1, rows, codes[rows])
                own[chunk] = paid[np.arange(len(rows)), codes[rows, -1]]
        order = np.lexsort((colliding, own, ids[colliding]))  # by ID, then distance, then row
        first = np.r_[True, np.diff(ids[colliding[order]]) > 0]
        moving[colliding[order[first]]] = False
    return moving


def _choose_codes(
    placed: np.ndarray, settled: np.ndarray, rows: np.ndarray, level: int, sizes: tuple[int, ...], pays: Distances
) -> np.ndarray:
    """Gives each of `rows` a code of this level with room below it, in place; returns the rows that found none."""
    if not len(rows):
        return rows
    room = math.prod(sizes[level + 1 :])  # IDs below one code of this level
    present = np.union1d(np.flatnonzero(settled), rows)
    parents = group_ids(placed[present, :level])
    order = np.argsort(parents, kind="stable")
    involved: np.ndarray = np.unique(parents[np.searchsorted(present, rows)])
    starts = np.searchsorted(parents[order], involved)
    ends = np.searchsorted(parents[order], involved, side="right")
    left = []
    for start, end in zip(starts, ends, strict=True):  # type: ignore[call-overload]
        members = present[order[start:end]]
        movers = members[~settled[members]]
        free = room - np.bincount(placed[members[settled[members]], level], minlength=sizes[level])  # [K]
        costs = pays(level, movers, placed[movers])  # [movers, K]
        taken = _match_one_each(costs, free) if room == 1 else _match_by_queue(costs, free)
        placed[movers[taken >= 0], level] = taken[taken >= 0]
        left.append(movers[taken < 0])
    return np.sort(np.concatenate(left))


def _match_one_each(costs: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Codes `[r]` of the matching that costs least, one row per free code; -1 for rows that found none."""
    open_codes = np.flatnonzero(free)
    taken = np.full(len(costs), -1, dtype=np.int64)
    rows, columns = linear_sum_assignment(costs[:, open_codes])
    taken[rows] = open_codes[columns]
    return taken


def _match_by_queue(costs: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Rows ask for their cheapest open code; it takes the cheapest of them it has room for, the others ask again.

    Returns the codes `[r]`, -1 for rows that no code had room for.
    """
    free = free.copy()
    taken = np.full(len(costs), -1, dtype=np.int64)
    waiting = np.arange(len(costs))
    while len(waiting) and free.any():  # each round fills a code or serves everyone
        open_codes = np.flatnonzero(free)
        wish = open_codes[costs[np.ix_(waiting, open_codes)].argmin(axis=1)]
        order = np.lexsort((waiting, costs[waiting, wish], wish))
        asked, counts = np.unique(wish, return_counts=True)
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)  # in the queue of its code
        accepted = order[place < np.repeat(free[asked], counts)]
        taken[waiting[accepted]] = wish[accepted]
        free[asked] -= np.minimum(counts, free[asked])
        waiting = waiting[taken[waiting] < 0]
    return taken


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
