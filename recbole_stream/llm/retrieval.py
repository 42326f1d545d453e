"""From the queries of a completion to a ranking of the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import CountVectorizer

__all__ = ["BM25", "RETRIEVALS", "Cosine", "Retrieval", "places_of", "rank_items", "tie_order"]

RETRIEVALS = ("cosine", "bm25")


class Retrieval(Protocol):
    """Gives every item of a catalogue of n a score for each query: -inf where it does not match at all."""

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        """Queries [q], q at least 1 -> scores [q, n]."""


class Cosine:
    """The cosine of a query's vector and an item's: every item matches.

    Args:
        vectors: of the items' texts [n, D].
        encode: texts [q] -> vectors [q, D] of the same encoder.
    """

    def __init__(self, vectors: np.ndarray, encode: Callable[[Sequence[str]], np.ndarray]) -> None:
        self._items, self._encode = _unit(vectors), encode

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        return _unit(self._encode(queries)) @ self._items.T


class BM25:
    """Okapi BM25 (Robertson and Zaragoza, 2009, Eq. 3.15) over the items' words, with the inverse frequency of Lucene.

    score = sum over the query's words of ln(1 + (n - df + .5) / (df + .5)) * tf / (tf + k1 (1 - b + b length / mean length))

    Args:
        texts: of the items [n].
        k1: how late a word's repeats stop to count.
        b: how much long texts are held back, from 0 to 1.
    """

    def __init__(self, texts: Sequence[str], k1: float = 1.2, b: float = 0.75) -> None:
        self._words = CountVectorizer(token_pattern=r"\w+")
        counts = self._words.fit_transform(texts).astype(np.float64)  # [n, words]
        frequency = np.asarray((counts > 0).sum(0)).ravel()
        rarity = np.log1p((len(texts) - frequency + 0.5) / (frequency + 0.5))
        length = np.asarray(counts.sum(1)).ravel()
        held_back = k1 * (1 - b + b * length / length.mean())
        entries = counts.tocoo()
        entries.data = rarity[entries.col] * entries.data / (entries.data + held_back[entries.row])
        self._weights = sparse.csc_matrix(entries.T)  # [words, n]

    def scores(self, queries: Sequence[str]) -> np.ndarray:
        scores = (self._words.transform(queries) @ self._weights).toarray()
        return np.where(scores > 0, scores, -np.inf)  # without a word in common, an item is not found


def tie_order(n: int) -> np.ndarray:
    """The order in which equals of n items are ranked, [n]: a fixed random one.

    The items' own numbers would not do: they follow the first mention in the data, and so popularity.
    """
    return np.random.default_rng(0).permutation(n)


def rank_items(scores: np.ndarray, ties: np.ndarray) -> np.ndarray:
    """A ranking of the items that match one or more queries.

    First comes the best item of each query, in the order of the queries. The others follow by their best score under any
    query. With one query that is the order of its scores.

    Args:
        scores: [q, n]; -inf where an item does not match.
        ties: the order of equals [n].

    Returns:
        the items that match, from 0, best first, each once.
    """
    best = scores.max(0)
    by_best = ties[np.argsort(-best[ties], kind="stable")]
    named = dict.fromkeys(int(ties[row[ties].argmax()]) for row in scores if row.max() > -np.inf)
    first = np.array(list(named), dtype=by_best.dtype)
    return np.concatenate([first, by_best[~np.isin(by_best, first) & (best[by_best] > -np.inf)]])


def places_of(queries: Sequence[str], retrieval: Retrieval, ties: np.ndarray) -> np.ndarray:
    """The place of every item in the ranking by some queries, from 1 [n]; 0 where it matches none, or there is none."""
    places = np.zeros(len(ties), dtype=np.int64)
    if queries:
        ranking = rank_items(retrieval.scores(queries), ties)
        places[ranking] = np.arange(1, len(ranking) + 1)
    return places


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
