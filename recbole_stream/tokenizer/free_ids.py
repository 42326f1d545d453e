"""Semantic IDs for items that come later, by the codebooks that a finished catalogue implies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from recbole_stream.errors import InputError
from recbole_stream.tokenizer.residual import sum_codewords
from recbole_stream.tokenizer.rq_kmeans import leading_components

__all__ = ["FreeIDs", "mean_codebooks"]


def mean_codebooks(embeddings: np.ndarray, codes: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    """A codebook a level: each code's word is the mean of what the levels before left of the items that bear it.

    For RQ-KMeans that is the centroid of k-means, but for the items that were moved to a free ID, which count where they
    are now. An RQ-VAE quantises what its encoder makes of an embedding: a finished catalogue has kept its codes and not
    its encoder, so that the means are the linear reading of them. IDs of one's own are read in the same way.

    Args:
        embeddings: what was quantised, float32 [n, D].
        codes: int [n, L], of the levels that are to be read.
        sizes: K of each level, length L.

    Returns:
        float32 [K_d, D] for each level, NaN for a code that no item bears.
    """
    books: list[np.ndarray] = []
    residual = embeddings.astype(np.float64)
    for level, size in enumerate(sizes):
        code = codes[:, level]
        counts = np.bincount(code, minlength=size)
        sums = np.zeros((size, embeddings.shape[1]))
        np.add.at(sums, code, residual)
        book = sums / np.where(counts, counts, np.nan)[:, None]
        residual -= book[code]
        books.append(book.astype(np.float32))
    return books


class FreeIDs:
    """Gives items, one after the other, the nearest semantic ID that nobody has.

    As at the tokenizer, the nearest word is taken level after level (squared Euclidean distance), in the space of the
    principal components that RQ-KMeans works in; at the last level the nearest one whose ID is free. Where none is, the
    search goes on as a beam over more and more prefixes, by the distance of their sums. Codes that no item bears have
    words of zeros and come after all others: a trained network knows nothing of them.

    Args:
        embeddings: of the catalogue, float32 [n, D].
        codes: its IDs, int [n, m].
        sizes: K of each level, length m.
        counter: whether the last level counts the items of equal codes (TIGER) instead of quantising: a new item gets
            the smallest number that is free behind its codes.
    """

    def __init__(self, embeddings: np.ndarray, codes: np.ndarray, sizes: Sequence[int], counter: bool = False) -> None:
        self.sizes, self.taken = tuple(sizes), set(map(tuple, codes.tolist()))
        levels = len(self.sizes) - counter
        self._leading = leading_components(embeddings, self.sizes[0])
        embeddings = self._latents(embeddings)
        books = mean_codebooks(embeddings, codes[:, :levels], self.sizes[:levels])
        books += [np.zeros((size, embeddings.shape[1]), np.float32) for size in self.sizes[levels:]]
        self._unborne = [np.isnan(book[:, 0]) for book in books]
        self._books = [np.nan_to_num(book) for book in books]

    def _latents(self, embeddings: np.ndarray) -> np.ndarray:
        if self._leading is None:
            return embeddings
        mean, basis = self._leading
        return (embeddings - mean) @ basis

    def reserve(self, codes: np.ndarray) -> None:
        """Mark IDs [n, m] as taken."""
        self.taken |= set(map(tuple, codes.tolist()))

    def take(self, embedding: np.ndarray) -> tuple[int, ...]:
        """The nearest free ID of an item, embedding [D]; it is taken from here on.

        Raises:
            InputError: all IDs are taken.
        """
        width, every, latent = 1, math.prod(self.sizes), self._latents(embedding)
        while True:
            for codes in self._search(latent, width):
                if codes not in self.taken:
                    self.taken.add(codes)
                    return codes
            if width >= every:
                raise InputError(
                    f"All {every:,} semantic IDs of the model are taken: train it anew with a larger codebook_size."
                )
            width *= 16

    def _search(self, latent: np.ndarray, width: int) -> list[tuple[int, ...]]:
        """IDs, nearest first: those that the best ``width`` prefixes of each level lead to."""
        prefixes, unborne = np.zeros((1, 0), np.int64), np.zeros(1, np.int64)
        for level, book in enumerate(self._books):
            residual = latent - sum_codewords(prefixes, self._books)  # [W, D]
            distances = (residual**2).sum(1)[:, None] - 2 * residual @ book.T + (book**2).sum(1)  # [W, K]
            strange = unborne[:, None] + self._unborne[level]
            # codes that items bear first, then by distance, then the smaller code: which is what a counter needs
            order = np.lexsort((distances.ravel(), strange.ravel()))
            if level < len(self._books) - 1:
                order = order[:width]
            rows, codes = np.divmod(order, len(book))
            prefixes, unborne = np.column_stack([prefixes[rows], codes]), strange.ravel()[order]
        return list(map(tuple, prefixes.tolist()))
