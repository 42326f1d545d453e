"""LETTER: what an RQ-VAE learns beside reconstructing texts.

Wang et al., "Learnable Item Tokenization for Generative Recommendation" (CIKM 2024, arXiv:2405.07314), Section 3.1: items
that the same users take get similar quantised vectors (collaborative regularisation), and the codewords of a level
spread over clusters of equal size (diversity regularisation). Their ranking-guided loss of the generator, a softmax with
a temperature, is the key ``temperature`` of TIGER and STREAMRec.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.kmeans import squared_distances

__all__ = ["Letter", "LetterOptions", "balanced_clusters", "collaborative_loss", "diversity_loss"]


@dataclass(frozen=True)
class LetterOptions:
    """How much LETTER's two losses count.

    Attributes:
        collaborative_weight: alpha, beside a reconstruction error that is a mean over the embedding's dimensions.
        diversity_weight: beta, likewise.
        clusters: of each level's codewords.
    """

    collaborative_weight: float = 0.02
    diversity_weight: float = 1e-4
    clusters: int = 10

    def __post_init__(self) -> None:
        if min(self.collaborative_weight, self.diversity_weight) < 0 or self.clusters < 1:
            raise InputError(f"LETTER needs weights of at least 0 and at least one cluster: got {self}.")


def collaborative_loss(quantised: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """L_CF: ``-log exp(z_i h_i) / sum_j exp(z_i h_j)`` over the items of a batch, its mean.

    Args:
        quantised: z, the sums of codewords `[B, d]`.
        vectors: h, collaborative vectors of the same items `[B, d]`.
    """
    return F.cross_entropy(quantised @ vectors.T, torch.arange(len(vectors), device=vectors.device))


def diversity_loss(codewords: torch.Tensor, codes: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """L_Div of one level: ``-log exp(e_c e_+) / sum_{k != c} exp(e_c e_k)``, the mean over the batch.

    Args:
        codewords: of the level `[K, d]`.
        codes: c, the codes of a batch of items `[B]`.
        positives: another code of the same cluster for each `[B]`.
    """
    logits = codewords[codes] @ codewords.T  # [B, K]
    own = F.one_hot(codes, len(codewords)).bool()
    return F.cross_entropy(logits.masked_fill(own, -torch.inf), positives)


def balanced_clusters(
    points: torch.Tensor, centres: torch.Tensor, iterations: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """k-means whose clusters differ by at most one point: each assignment is the best one of those.

    Args:
        points: `[n, d]`.
        centres: to start from `[K, d]`, K at most n.
        iterations: at least 1.

    Returns:
        the cluster of every point, int64 `[n]`, and the clusters' means `[K, d]`.
    """
    n, k = len(points), len(centres)
    places = np.arange(n) % k  # n places, as equally shared by the clusters as can be
    for _ in range(iterations):
        distances = squared_distances(points, centres).double().cpu().numpy()
        clusters = torch.from_numpy(places[linear_sum_assignment(distances[:, places])[1]]).to(points.device)
        share = F.one_hot(clusters, k).to(points)  # [n, K]
        centres = share.T @ points / share.sum(0)[:, None]
    return clusters, centres


class Letter:
    """Both losses while an RQ-VAE trains.

    Args:
        vectors: collaborative vectors h of all items, float32 `[n, d]`, d being the size of the codewords. They are
            centred and brought to a standard deviation of 1, so that alpha does not depend on where they come from.
        options: weights and clusters.
        dimensions: D of the embeddings, whose squared error our RQ-VAE sums and LETTER's averages.
        generator: of all that is drawn here, on the CPU.
        device: of the RQ-VAE.
    """

    def __init__(
        self, vectors: np.ndarray, options: LetterOptions, dimensions: int, generator: torch.Generator, device: str
    ) -> None:
        centred = vectors - vectors.mean(0)
        self.vectors = torch.from_numpy(centred / max(float(centred.std()), 1e-6)).float().to(device)
        self.options, self.dimensions, self.generator = options, dimensions, generator
        self.centres: list[torch.Tensor] = []
        self.mates: list[list[torch.Tensor]] = []

    @torch.no_grad()
    def cluster(self, codebooks: torch.Tensor) -> None:
        """Cluster the codewords `[m, K, d]` of every level, from where they were clustered last."""
        if not self.centres:
            start = torch.randperm(codebooks.shape[1], generator=self.generator)[: self.options.clusters]
            self.centres = [codebook[start.to(codebook.device)] for codebook in codebooks]
        self.mates = []
        for level, codebook in enumerate(codebooks):
            clusters, self.centres[level] = balanced_clusters(codebook, self.centres[level], iterations=3)
            members = clusters[:, None] == clusters  # [K, K]
            members.fill_diagonal_(False)
            self.mates.append([row.nonzero()[:, 0].cpu() for row in members])

    def loss(
        self, rows: torch.Tensor, quantised: torch.Tensor, codes: torch.Tensor, codebooks: torch.Tensor
    ) -> torch.Tensor:
        """``D (alpha L_CF + beta sum of L_Div over the levels)``.

        Args:
            rows: of the batch's items `[B]`.
            quantised: their sums of codewords `[B, d]`, whose gradient reaches the encoder.
            codes: `[B, m]`.
            codebooks: `[m, K, d]`.
        """
        options = self.options
        total = options.collaborative_weight * collaborative_loss(quantised, self.vectors[rows])
        if options.diversity_weight:
            for level, codebook in enumerate(codebooks):
                positives = self._mates_of(level, codes[:, level])
                total = total + options.diversity_weight * diversity_loss(codebook, codes[:, level], positives)
        return self.dimensions * total

    def _mates_of(self, level: int, codes: torch.Tensor) -> torch.Tensor:
        """For each code a random other one of its cluster."""
        draws = torch.rand(len(codes), generator=self.generator).tolist()
        mates = [self.mates[level][code] for code in codes.tolist()]
        chosen = [int(some[int(draw * len(some))]) for some, draw in zip(mates, draws, strict=True)]
        return torch.tensor(chosen, device=codes.device)
