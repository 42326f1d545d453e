"""k-means in torch: the codebook of one level, and the start of every RQ-VAE codebook."""

from __future__ import annotations

import math

import torch

__all__ = ["kmeans", "nearest_codeword", "squared_distances"]

_CHUNK = 1 << 14  # rows whose distances to all codewords are held at once


def squared_distances(points: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """`‖points_i − codewords_k‖²`, `[n, d]`, `[K, d]` -> `[n, K]`, at least 0."""
    cross = points @ codewords.T  # [n, K]
    return (points.square().sum(1, keepdim=True) - 2 * cross + codewords.square().sum(1)).clamp_(min=0)


def nearest_codeword(points: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """`argmin_k ‖points_i − codewords_k‖` (the choice of Eq. 5), `[n, d]`, `[K, d]` -> int64 `[n]`."""
    return _assign(points, codewords)[0]


def _assign(points: torch.Tensor, codewords: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest codeword `[n]` and `‖codeword‖² − 2 point·codeword` `[n]`: the squared distance less `‖point‖²`."""
    offset = codewords.square().sum(1)
    best = [torch.addmm(offset, chunk, codewords.T, alpha=-2).min(dim=1) for chunk in points.split(_CHUNK)]
    return torch.cat([found.indices for found in best]), torch.cat([found.values for found in best])


def kmeans(
    points: torch.Tensor, n_clusters: int, generator: torch.Generator, max_iterations: int = 50, tolerance: float = 1e-4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from a k-means++ start; a cluster that runs empty moves to the point worst served.

    Args:
        points: `[n, d]`, float.
        n_clusters: K; may exceed the number of distinct points, codewords then repeat.
        generator: torch generator on the CPU; equal seeds give equal results on equal hardware.
        max_iterations: Lloyd steps at most.
        tolerance: stop once a step lowers the mean squared distance by less than this share of it.

    Returns:
        codewords `[K, d]` and the nearest codeword of every point, int64 `[n]`.
    """
    codewords = _plus_plus(points, n_clusters, generator)
    squared_norms = points.square().sum(1)  # [n]
    codes, partial = _assign(points, codewords)
    error = (squared_norms + partial).mean()
    for _ in range(max_iterations):
        codewords = _means(points, codes, codewords, squared_norms + partial)
        codes, partial = _assign(points, codewords)
        previous, error = error, (squared_norms + partial).mean()
        if previous - error <= tolerance * previous:
            break
    return codewords, codes


def _plus_plus(points: torch.Tensor, n_clusters: int, generator: torch.Generator) -> torch.Tensor:
    """Greedy k-means++: of a few points drawn by their squared distance to the codewords so far, the most useful."""
    n = len(points)
    n_candidates = 2 + int(math.log(n_clusters))
    draws = torch.rand(n_clusters, n_candidates, generator=generator, dtype=torch.float64).to(points.device)
    squared_norms = points.square().sum(1)  # [n]
    chosen = torch.empty(n_clusters, points.shape[1], dtype=points.dtype, device=points.device)
    closest = squared_norms.new_full((n,), torch.inf)
    mass = torch.arange(1, n + 1, dtype=torch.float64, device=points.device)  # the first draw is uniform
    for k in range(n_clusters):
        candidates = torch.searchsorted(mass, draws[k] * mass[-1], right=True).clamp(max=n - 1)  # [c]
        distances = squared_distances(points[candidates], points)  # [c, n]
        # Rounding leaves a drawn point's copies a hair above 0; they would be drawn again.
        distances[distances <= 1e-6 * squared_norms] = 0
        after = torch.minimum(closest, distances)
        best = after.sum(1, dtype=torch.float64).argmin()
        closest = after[best]
        chosen[k] = points[candidates[best]]
        mass = closest.cumsum(0, dtype=torch.float64)
    return chosen


def _means(points: torch.Tensor, codes: torch.Tensor, codewords: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
    """The mean of every cluster; empty clusters take the points farthest from their codewords."""
    sums = torch.zeros_like(codewords)
    if points.device.type == "cpu":
        sums.index_add_(0, codes, points)
    else:  # index_add on a GPU adds in no fixed order, and the result must not depend on it
        for chunk, chunk_codes in zip(points.split(_CHUNK), codes.split(_CHUNK), strict=True):
            sums += torch.nn.functional.one_hot(chunk_codes, len(codewords)).to(points.dtype).T @ chunk
    counts = torch.bincount(codes, minlength=len(codewords))
    means = sums / counts.clamp(min=1).unsqueeze(1)
    empty = torch.nonzero(counts == 0).squeeze(1)
    if len(empty):
        farthest = torch.sort(distances, descending=True, stable=True).indices[: len(empty)]
        means[empty[: len(farthest)]] = points[farthest]
        means[empty[len(farthest) :]] = codewords[empty[len(farthest) :]]
    return means
