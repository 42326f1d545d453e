"""Filters on interactions as integer arrays: repeats, order, iterated k-core."""

from __future__ import annotations

import numpy as np

__all__ = ["factorise", "first_of_pairs", "frequent", "iterated_k_core"]

_CHUNK = 1 << 22


def factorise(ids: np.ndarray) -> np.ndarray:
    """Consecutive codes from 0 in the order of first appearance.

    Args:
        ids: any integers, `[n]`.

    Returns:
        codes int32, `[n]`.
    """
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    codes = np.empty(len(first), dtype=np.int32)
    codes[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return codes[inverse]


def frequent(ids: np.ndarray, least: int) -> np.ndarray:
    """Which rows hold an id that occurs in at least `least` rows; bool, `[n]`.

    For ids of any size, in less memory than `factorise` needs: a first sieve.
    """
    values, counts = np.unique(ids, return_counts=True)
    values = values[counts >= least]
    keep = np.zeros(len(ids), dtype=bool)
    if len(values):
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            place = np.minimum(np.searchsorted(values, part), len(values) - 1)
            keep[start : start + _CHUNK] = values[place] == part
    return keep


def first_of_pairs(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The first row of every (user, item) pair, as ascending row numbers.

    Args:
        users, items: codes from 0, `[n]`; users times items below 2^63.

    Returns:
        rows int64, `[pairs]`.
    """
    pairs = users.astype(np.int64) * (int(items.max(initial=0)) + 1) + items
    return np.sort(np.unique(pairs, return_index=True)[1])


def iterated_k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """The largest set of rows in which every user and every item has at least `k` rows.

    Filtering users takes rows from items and the other way round, so both are
    filtered until nothing more goes.

    Args:
        users, items: codes from 0, `[n]`.
        k: least rows per user and per item.

    Returns:
        rows int64, ascending, `[kept]`; empty where no such set exists.
    """
    rows = np.arange(len(users))
    while True:
        keep = (np.bincount(users)[users] >= k) & (np.bincount(items)[items] >= k)
        if keep.all():
            return rows
        rows, users, items = rows[keep], users[keep], items[keep]
