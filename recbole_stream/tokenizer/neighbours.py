"""The most similar other items: targets of Stage 1, negatives of Eq. 16-18, the K items of Eq. 27."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from recbole_stream.errors import InputError

__all__ = ["nearest_by_ids", "nearest_items"]

_SCORES = 1 << 25  # similarities held at once (128 MiB of float32)


def nearest_items(embeddings: np.ndarray, k: int, device: str = "cpu") -> np.ndarray:
    """The k other items of highest cosine, best first; of equals the one with the lower row comes first.

    Args:
        embeddings: `[n, d]`; a row of zeros has cosine 0 with all.
        k: neighbours per item, `1 <= k < n`.
        device: torch device of the products.

    Returns:
        rows, int64 `[n, k]`; memory beyond that does not grow with n².

    Raises:
        InputError: not that many other items.
    """
    _check(len(embeddings), k)
    points = torch.tensor(embeddings, dtype=torch.float32, device=device)
    points /= points.norm(dim=1, keepdim=True).clamp(min=1e-12)

    # Rounded, so that copies of an item tie whatever blocks the product was computed in.
    def cosines(rows: torch.Tensor) -> torch.Tensor:
        return (points[rows] @ points.T).round_(decimals=6)

    return _nearest(cosines, torch.arange(len(points), device=device), len(points), k).cpu().numpy()


def nearest_by_ids(codes: np.ndarray, k: int) -> np.ndarray:
    """The k other items of most similar semantic ID: more leading codes shared, then more codes shared anywhere.

    A code counts as shared at its own level only. Of equals the lower row comes first.

    Args:
        codes: `[n, m]`.
        k: neighbours per item, `1 <= k < n`.

    Returns:
        rows, int64 `[n, k]`.

    Raises:
        InputError: not that many other items.
    """
    _check(len(codes), k)
    table = torch.tensor(codes, dtype=torch.int32)
    nearest = torch.empty(len(table), k, dtype=torch.int64)
    few = []
    # Whoever shares the first code comes before all who do not, so mostly the own group is all there is to look at.
    order = torch.argsort(table[:, 0], stable=True)
    sizes = torch.unique_consecutive(table[order, 0], return_counts=True)[1].tolist()
    for group in order.split(sizes):
        if len(group) > k:
            nearest[group] = group[_nearest_by_codes(table[group], torch.arange(len(group)), k)]
        else:
            few.append(group)
    if few:
        rows = torch.cat(few)
        nearest[rows] = _nearest_by_codes(table, rows, k)
    return nearest.numpy()


def _check(n: int, k: int) -> None:
    if not 1 <= k < n:
        raise InputError(f"{k} similar items cannot be found among {n} items: ask for 1 to {n - 1}.")


def _nearest_by_codes(table: torch.Tensor, rows: torch.Tensor, k: int) -> torch.Tensor:
    levels = table.shape[1]

    def similarities(chunk: torch.Tensor) -> torch.Tensor:
        score = torch.zeros(len(chunk), len(table))
        leading = torch.ones(len(chunk), len(table), dtype=torch.bool)
        for level in range(levels):
            shared = table[chunk, level, None] == table[:, level]  # [r, n]
            leading &= shared
            score += shared
            score += leading * (levels + 1)  # one more leading code outweighs all codes elsewhere
        return score

    return _nearest(similarities, rows, len(table), k)


def _nearest(similarities: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor, n: int, k: int) -> torch.Tensor:
    """For each of `rows` the k best of n candidates but itself, int64 `[len(rows), k]`; similarities are `[r, n]`."""
    nearest = []
    for chunk in rows.split(max(1, _SCORES // n)):
        scores = similarities(chunk)
        scores[torch.arange(len(chunk), device=scores.device), chunk] = -torch.inf
        nearest.append(_top_k(scores, k))
    return torch.cat(nearest)


def _top_k(scores: torch.Tensor, k: int) -> torch.Tensor:
    """Columns of the k highest of `[r, n]`, best first; `torch.topk` leaves the order of equals open."""
    last = scores.topk(k).values[:, -1:]  # [r, 1]
    above, equal = scores > last, scores == last
    chosen = above | (equal & (equal.cumsum(1, dtype=torch.int32) <= k - above.sum(1, keepdim=True)))
    columns = chosen.nonzero()[:, 1].view(-1, k)  # ascending
    order = scores.gather(1, columns).sort(dim=1, descending=True, stable=True).indices
    return columns.gather(1, order)
