"""Items found by words of their titles."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np

from recbole_stream.serving.folder import Parts
from recbole_stream.serving.schema import Item

__all__ = ["Titles"]


class Titles:
    """All items, the most frequent of the training data first."""

    def __init__(self, items: Sequence[str], titles: Sequence[str], events: Sequence[int]) -> None:
        """Names, titles (empty where there are none) and numbers of events, each of all items."""
        order = np.argsort(-np.asarray(events), kind="stable")
        self._items = [Item(item=items[row], title=titles[row]) for row in order]
        self._folded = [_folded(item.title or item.item) for item in self._items]

    @classmethod
    def of(cls, parts: Parts) -> Titles:
        """Of a model's folder."""
        events = np.concatenate([np.empty(0), *parts.users["items"]]).astype(int)
        counts = np.bincount(events, minlength=len(parts.items) + 1)[1:]
        items, titles = (parts.items[name].fillna("").astype(str).tolist() for name in ("item", "title"))
        return cls(items, titles, counts.tolist())

    def __len__(self) -> int:
        return len(self._items)

    def find(self, query: str, most: int) -> list[Item]:
        """Items whose name is the query or whose title has all its words, in any order and parts of words too.

        The item of that name comes first, then titles that begin with the query, then those of which a word does, then
        the others; among these the more frequent first. An empty query finds the most frequent items.
        """
        words = _folded(query).split()
        if not words:
            return self._items[:most]
        whole, name = " ".join(words), query.strip()
        places: list[list[Item]] = [[], [], [], []]
        for item, title in zip(self._items, self._folded):
            if item.item == name:
                places[0].append(item)
            elif all(word in title for word in words):
                place = 1 if title.startswith(whole) else 2 if f" {whole}" in title else 3
                places[place].append(item)
        return [item for place in places for item in place][:most]


def _folded(text: str) -> str:
    """Without case and accents."""
    apart = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in apart if not unicodedata.combining(letter)).casefold()
