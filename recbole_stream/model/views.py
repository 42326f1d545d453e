"""What the views of a deliberation say of some histories: of the whole catalogue in parts, or of given items.

The catalogue is gone through in chunks of items. Matching and text are products with every item; transitions and
repeats say something of few items, and are added at these alone. No matrix of all histories and all items is made.

With an index (:mod:`recbole_stream.model.item_index`) only the items that it finds by matching and text are looked at,
and those of which transitions and repeats say something.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from recbole_stream.model.linear import product
from recbole_stream.model.lookup import UNSEEN, find_sorted, log_shares, recency_weights
from recbole_stream.model.pointer import SUMS

if TYPE_CHECKING:
    from recbole_stream.model.deliberation import Deliberation
    from recbole_stream.model.item_index import ItemIndex

__all__ = ["BatchViews", "best", "indexed", "uses_index"]

_CELLS = 1 << 22  # scores that are held at once
_BLOCK = 64
_SAMPLE = 1 << 14  # items by which the normaliser is estimated where an index finds the best
_NEAR = 256  # items that the index is asked for, so as to leave out others
_MARGIN = 8  # an index has to look at so many times the items that are wanted, or all are gone through


class BatchViews:
    """The views beside the likelihood, of a batch of histories.

    Args:
        slow: whose views.
        histories: item ids [B, L], 0 as padding on the right.
        vectors: of all items, see :meth:`Matcher.forward`.
        used: which views there are, see :class:`Deliberation`; the others are 0.
    """

    def __init__(self, slow: Deliberation, histories: Tensor, vectors: Tensor | None, used: Sequence[bool]) -> None:
        self.slow, self.histories = slow, histories
        self.n_items = slow.transitions.n_items
        _, matching, transitions, text, self.repeats = used
        self.vectors = self.states = self.query = None
        if matching:
            self.vectors = slow.matcher.vectors() if vectors is None else vectors
            self.states = slow.matcher.states(histories, self.vectors)
        if text:
            self.query = slow.content.query(histories)
        # of the items that were asked for last
        self._cosines: tuple[Tensor, Tensor] | None = None
        self._places: tuple[Tensor, Tensor, Tensor] | None = None
        self.followed = slow.transitions.followers(histories) if transitions else None

    def candidates(self, count: int, weights: Sequence[float]) -> Tensor:
        """The best items by the weighted sum of the views, [B, min(count, items)], best first.

        Args:
            count: how many.
            weights: of the four views.
        """
        if uses_index(self.slow, weights[0], weights[2], count, self.histories.shape[1]):
            return self._search(self.slow.index, count, weights)
        matching, transitions, text, repeats = weights
        query = None if self.query is None else self.query * text
        count, chunks = min(count, self.n_items - 1), self._chunks()
        rows, items, added = self._sparse(transitions, repeats, len(chunks) > 1)
        parts, scores, sums = [], [], []
        for first, last in chunks:
            together = torch.zeros(len(self.histories), last - first, device=self.histories.device)
            if self.states is not None:
                logits = self._logits(first, last)
                sums.append(logits.logsumexp(-1))
                together = logits.mul_(matching)
            if query is not None and text:
                together += product(query, self.slow.content.unit[first:last])
            some = slice(None)
            if len(chunks) > 1:
                some = slice(*torch.searchsorted(items, torch.tensor([first, last], device=items.device)).tolist())
            together.view(-1).index_add_(0, rows[some] * (last - first) + items[some] - first, added[some])
            value, place = best(together, count)
            parts.append(place + first)
            scores.append(value)
        if sums:
            self.normaliser = torch.stack(sums).logsumexp(0)
        order = torch.cat(scores, 1).topk(count, 1).indices
        return torch.cat(parts, 1).gather(1, order)

    def of(self, items: Tensor) -> Tensor:
        """The views of given items: [B, C] -> [B, C, 4], in the order of ``VIEWS`` without the first."""
        views = [torch.zeros_like(items, dtype=torch.float32)] * 4
        if self.states is not None:
            views[0] = (self._matches(items) - self.normaliser[:, None]).masked_fill(items == 0, 0.0)
        if self.followed is not None:
            place, there = self._found(items)
            shares = self.followed.shares[place].masked_fill(~there, 0.0) if len(self.followed.cells) else views[1]
            views[1] = log_shares(shares)
        if self.query is not None:
            weights = recency_weights(self.histories, self.slow.content.recency)
            views[2] = (self.cosines(items) @ weights[..., None])[..., 0]
        if self.repeats:
            views[3] = (items[:, :, None] == self.histories[:, None]).any(-1).float()
        return torch.stack(views, -1)

    def cosines(self, items: Tensor) -> Tensor | None:
        """Between the texts of given items and of the histories, [B, C] -> [B, C, L]; None without the view ``text``."""
        if self.query is None:
            return None
        if self._cosines is None or self._cosines[0] is not items:
            unit = self.slow.content.unit
            self._cosines = items, unit[items] @ unit[self.histories].transpose(1, 2)
        return self._cosines[1]

    def sums(self, items: Tensor) -> Tensor:
        """What the pointer's memory counts of given items, [B, C] -> [B, C, 15]; 0 without the view ``transitions``."""
        if self.followed is None:
            return torch.zeros(*items.shape, SUMS, device=items.device)
        recency = self.slow.transitions.recency
        return self.slow.pointer.pairs.sums(self.histories, self.followed, *self._found(items), recency)

    def _found(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`Followers.find` of given items."""
        if self._places is None or self._places[0] is not items:
            self._places = items, *self.followed.find(self._cells(items))
        return self._places[1:]

    def _cells(self, items: Tensor) -> Tensor:
        """Row times the number of items plus item, [B, C] as ``items``."""
        return torch.arange(len(items), device=items.device)[:, None] * self.n_items + items

    @cached_property
    def normaliser(self) -> Tensor:
        """log of the sum over all items of e to the logit of matching, [B]."""
        return torch.stack([self._logits(*chunk).logsumexp(-1) for chunk in self._chunks()]).logsumexp(0)

    def _search(self, index: ItemIndex, count: int, weights: Sequence[float]) -> Tensor:
        """As :meth:`candidates`, among the items that the index finds and those of the views of few items; 0 for none.

        Where the index looks into all lists, these are the best of all: an item that only matching and text speak for
        comes after fewer than ``count`` others and the history's own items, which ``repeats`` may take back. An item of
        the views of few items is left out where it cannot be among the best: what they add to it is less than matching
        and text lose from the last of those ``count`` and own items to the last that is near.
        """
        few = count + self.histories.shape[1]
        near, products = index.nearest(self._query(index, *weights[::2]), max(few, _NEAR))
        rows, items, added = self._sparse(weights[1], weights[3], False)
        cells, inverse = (rows * self.n_items + items).unique(return_inverse=True)
        added = torch.zeros(len(cells), device=cells.device).index_add_(0, inverse, added)
        place, known = find_sorted(cells, self._cells(near))
        lost = products[:, few - 1] - products.masked_fill(near == 0, torch.inf).amin(1)
        kept = added >= lost[cells // self.n_items]
        kept[place[known]] = True
        cells, added = cells[kept], added[kept]
        near, known = near[:, :few], known[:, :few]
        # the items of each row in a table, those of the sparse views behind the near ones
        row = cells // self.n_items
        lengths = torch.bincount(row, minlength=len(near))
        place = torch.arange(len(cells), device=cells.device) - (lengths.cumsum(0) - lengths)[row] + near.shape[1]
        table = near.new_zeros(len(near), near.shape[1] + int(lengths.max()))
        table[:, : near.shape[1]] = near.masked_fill(known, 0)
        table[row, place] = cells % self.n_items
        total = torch.zeros(table.shape, device=table.device)
        total[row, place] = added
        if self.states is not None:
            logits = self._matches(table).masked_fill(table == 0, -torch.inf)
            self.normaliser = self._estimate(table, logits)
            total += weights[0] * logits.masked_fill(table == 0, 0.0)
        if self.query is not None and weights[2]:
            total += weights[2] * self._texts(table)
        order = total.masked_fill(table == 0, -torch.inf).topk(min(count, table.shape[1]), 1).indices
        return table.gather(1, order)

    def _query(self, index: ItemIndex, matching: float, text: float) -> Tensor:
        """By what :func:`indexed` vectors are multiplied, [B, D]."""
        wanted = zip(index.scales, (matching, text), (self.states, self.query))
        return torch.cat([vectors.float() * (weight / scale) for scale, weight, vectors in wanted if scale], 1)

    def _estimate(self, items: Tensor, logits: Tensor) -> Tensor:
        """The normaliser from the logits of some items [B, M], 0 being none, and from an even sample of all others, [B]."""
        step = -(-(self.n_items - 1) // _SAMPLE)
        # oneDNN takes a hundred times as long for rows that lie apart
        sample = product(self.states, self.vectors[1::step].contiguous()).float()
        row, place = ((items > 0) & ((items - 1) % step == 0)).nonzero(as_tuple=True)
        sample[row, (items[row, place] - 1) // step] = -torch.inf
        left = (sample > -torch.inf).sum(1)
        others = self.n_items - 1 - (items > 0).sum(1)
        rest = sample.logsumexp(1) + (others / left.clamp(min=1)).log()
        return torch.stack([logits.logsumexp(1), rest]).logsumexp(0)

    def _matches(self, items: Tensor) -> Tensor:
        """Logits of matching of given items, [B, C]."""
        return _products(self.vectors, items, self.states)

    def _texts(self, items: Tensor) -> Tensor:
        return _products(self.slow.content.unit, items, self.query)

    def _chunks(self) -> list[tuple[int, int]]:
        """First item and the one after the last of each chunk; the padding item is in none."""
        width = max(_BLOCK, _CELLS // max(1, len(self.histories)))
        return [(first, min(first + width, self.n_items)) for first in range(1, self.n_items, width)]

    def _logits(self, first: int, last: int) -> Tensor:
        return product(self.states, self.vectors[first:last]).float()

    def _sparse(self, transitions: float, repeats: float, ordered: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Rows, items and what the views of few items add to the weighted sum, [P] each; by item if ``ordered``."""
        device = self.histories.device
        cells, added = [self.histories.new_zeros(0)], [torch.zeros(0, device=device)]
        if self.followed is not None and transitions:
            # all other items have the logarithm of UNSEEN, which changes no order
            cells.append(self.followed.cells)
            added.append(transitions * (self.followed.shares / UNSEEN).log1p())
        if self.repeats and repeats:
            own = self._cells(self.histories)[self.histories > 0].unique()
            cells.append(own)
            added.append(torch.full((len(own),), repeats, device=device))
        cell, value = torch.cat(cells), torch.cat(added)
        items = cell % self.n_items
        if ordered:
            items, order = items.sort(stable=True)
            cell, value = cell[order], value[order]
        return cell // self.n_items, items, value


def uses_index(slow: Deliberation, matching: float, text: float, count: int, length: int) -> bool:
    """Whether the best items are looked for by the index of a deliberation, and not among all.

    Args:
        slow: with or without an index.
        matching, text: weights of these views.
        count: how many items are wanted.
        length: L, of the histories.
    """
    return slow.index is not None and slow.index.serves(matching, text, _MARGIN * (count + length))


def indexed(slow: Deliberation, scales: Sequence[float]) -> Tensor:
    """What an index holds of each item [n_items, D]: its vectors of matching and text, each times its scale unless that is 0."""
    tables = (slow.matcher.vectors, lambda: slow.content.unit)
    return torch.cat([scale * table()[1:].float() for scale, table in zip(scales, tables) if scale], 1)


def _products(table: Tensor, items: Tensor, vectors: Tensor) -> Tensor:
    """Rows of a table [N, D] by item ids [B, C], times a vector for each history [B, D]: [B, C]."""
    rows = max(1, _CELLS // max(1, items.shape[1] * table.shape[1]))
    parts = [(table[some] @ own[..., None])[..., 0] for some, own in zip(items.split(rows), vectors.split(rows))]
    return torch.cat(parts).float()


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """As ``scores.topk(count, 1)`` of [B, N], or all N where they are fewer; faster where they are many.

    The ``count`` best lie within the ``count`` blocks whose maxima are largest; only these are sorted.
    """
    n = scores.shape[1]
    blocks = n // _BLOCK
    if blocks < 2 * count:
        return scores.topk(min(count, n), 1)
    # block b has columns b, b + blocks, ..: maxima are then taken of whole rows
    whole = scores[:, : blocks * _BLOCK]
    chosen = whole.view(-1, _BLOCK, blocks).amax(1).topk(count, 1).indices
    place = (chosen[:, :, None] + torch.arange(_BLOCK, device=scores.device) * blocks).flatten(1)
    place = torch.cat([place, torch.arange(blocks * _BLOCK, n, device=scores.device).expand(len(scores), -1)], 1)
    values, order = scores.gather(1, place).topk(count, 1)
    return values, place.gather(1, order)
