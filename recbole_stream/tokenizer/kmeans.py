"""k-means in torch: the codebook of one level, and the start of every RQ-VAE codebook."""

from __future__ import annotations

import math

import torch

__all__ = ["kmeans", "lloyd_step", "nearest_codeword", "squared_distances"]

_CHUNK = 1 << 14  # rows whose distances to all codewords are held at once
_SPLITTING_STEPS = 15
_SMALL = 0.25  # of n / K: a smaller cluster is given up
_STEP = 0.1  # of a cluster's root mean squared distance: how far its halves start from its mean


def squared_distances(points: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """`‖points_i − codewords_k‖²`, `[n, d]`, `[K, d]` -> `[n, K]`, at least 0."""
    cross = points @ codewords.T  # [n, K]
    return (points.square().sum(1, keepdim=True) - 2 * cross + codewords.square().sum(1)).clamp_(min=0)


def nearest_codeword(points: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """`argmin_k ‖points_i − codewords_k‖`, `[n, d]`, `[K, d]` -> int64 `[n]`."""
    return _assign(points, codewords)[0]


def _assign(points: torch.Tensor, codewords: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest codeword `[n]` and `‖codeword‖² − 2 point·codeword` `[n]`: the squared distance less `‖point‖²`."""
    offset = codewords.square().sum(1)
    best = [torch.addmm(offset, chunk, codewords.T, alpha=-2).min(dim=1) for chunk in points.split(_CHUNK)]
    return torch.cat([found.indices for found in best]), torch.cat([found.values for found in best])


def kmeans(
    points: torch.Tensor, n_clusters: int, generator: torch.Generator, max_iterations: int = 50, tolerance: float = 1e-4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's algorithm from a k-means++ start, with a codebook that gets used.

    Residuals have a dense middle and outliers; there plain Lloyd ends with one
    huge cluster and many of a single point. During the first steps clusters
    with less than a quarter of their share (n / K) therefore give up their
    codeword, which goes to split one of the largest clusters.

    Args:
        points: `[n, d]`, float.
        n_clusters: K; may exceed the number of distinct points, some codewords are then unused.
        generator: torch generator on the CPU; equal seeds give equal results on equal hardware.
        max_iterations: Lloyd steps at most, after the splitting.
        tolerance: stop once a step lowers the mean squared distance by less than this share of it.

    Returns:
        codewords `[K, d]` and the nearest codeword of every point, int64 `[n]`.
    """
    codewords = _plus_plus(points, n_clusters, generator)
    squared_norms = points.square().sum(1)  # [n]
    codes, partial = _assign(points, codewords)
    for _ in range(_SPLITTING_STEPS):
        codewords = _means(points, codes, codewords)
        codewords = _split(codewords, codes, (squared_norms + partial).clamp(min=0), generator)
        codes, partial = _assign(points, codewords)
    error = (squared_norms + partial).mean()
    for _ in range(max_iterations):
        codewords = _means(points, codes, codewords)
        codes, partial = _assign(points, codewords)
        previous, error = error, (squared_norms + partial).mean()
        if previous - error <= tolerance * previous:
            break
    return codewords, codes


def lloyd_step(points: torch.Tensor, codewords: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The means of the points nearest to each codeword, and those points' codewords: `[n, d]`, `[K, d]` -> `[K, d]`, `[n]`.

    A codeword that no point is nearest to stays.
    """
    codes = nearest_codeword(points, codewords)
    return _means(points, codes, codewords), codes


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


def _means(points: torch.Tensor, codes: torch.Tensor, codewords: torch.Tensor) -> torch.Tensor:
    """The mean of every cluster, `[K, d]`; an empty cluster keeps its codeword."""
    sums = torch.zeros_like(codewords)
    if points.device.type == "cpu":
        sums.index_add_(0, codes, points)
    else:  # index_add on a GPU adds in no fixed order, and the result must not depend on it
        for chunk, chunk_codes in zip(points.split(_CHUNK), codes.split(_CHUNK), strict=True):
            sums += torch.nn.functional.one_hot(chunk_codes, len(codewords)).to(points.dtype).T @ chunk
    counts = torch.bincount(codes, minlength=len(codewords)).unsqueeze(1)  # [K, 1]
    return torch.where(counts > 0, sums / counts.clamp(min=1), codewords)


def _split(
    codewords: torch.Tensor, codes: torch.Tensor, distances: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Codewords of small clusters move to either side of those of the largest, along a random direction.

    Args:
        codewords: means of the clusters, `[K, d]`.
        codes: cluster of every point, `[n]`.
        distances: squared, of every point to its codeword, `[n]`; the root of a cluster's mean sets its step.
        generator: of the directions.
    """
    n_clusters, dimensions = codewords.shape
    counts = torch.bincount(codes, minlength=n_clusters)
    small = torch.nonzero(counts * n_clusters < _SMALL * len(codes)).squeeze(1)
    small = small[: n_clusters - len(small)]
    large = torch.sort(counts, descending=True, stable=True).indices[: len(small)]
    direction = torch.randn(len(small), dimensions, generator=generator).to(codewords)
    spread = _means(distances.unsqueeze(1), codes, distances.new_zeros(n_clusters, 1)).sqrt()  # [K, 1]
    step = _STEP * spread[large] * direction / direction.norm(dim=1, keepdim=True)
    split = codewords.clone()
    split[small] = codewords[large] + step
    split[large] = codewords[large] - step
    return split
