"""Likelihoods without beams: the k most likely items with proof that no other is likelier, and those of all items."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.data.samples import trim
from recbole_stream.decoding.beam import best_items, child_scores, score_shared_items
from recbole_stream.decoding.rank import thought
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.prefix import Prefix
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel

__all__ = ["exact_search", "rank_items_exactly", "score_catalogue"]

# log-probabilities of one prefix that come from batches of other shapes differ by less
_ROUNDING = 1e-4
_TOKENS = 4096  # prefixes that are read at once
_HISTORIES, _ITEMS = 128, 256  # that are searched, and scored, at once


@torch.no_grad()
def rank_items_exactly(
    model: TIGERModel | STREAMRecModel, histories: Tensor, trie: Trie, top: int, beams: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The most likely next items given the model's reasoning; see :func:`exact_search`."""
    parts = [exact_search(thought(model, trim(part)), trie, top, beams) for part in histories.split(_HISTORIES)]
    items, scores, exact = zip(*parts)
    return torch.cat(items), torch.cat(scores), torch.cat(exact)


@torch.no_grad()
def score_catalogue(prefix: Prefix, trie: Trie) -> Tensor:
    """Exact log P of every item after a prefix, without any search.

    Args:
        prefix: one sequence a history (G = 1), the next token being the item's first.

    Returns:
        [B, n_items + 1] in float32, -inf for the padding item.
    """
    histories = len(prefix.hidden)
    scores = torch.full((histories, trie.nodes[-1] + 1), -torch.inf, device=prefix.hidden.device)
    # neighbours in the trie begin with the same tokens, which are read once
    for items in trie.items.long().split(_ITEMS):
        scores[:, items] = score_shared_items(prefix, items.expand(histories, -1))[:, 0]
    return scores


@torch.no_grad()
def exact_search(prefix: Prefix, trie: Trie, top: int, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``top`` most likely items after a prefix, exactly.

    No item is likelier than any prefix of it. It is therefore enough to read every prefix that is at least as likely
    as the k-th best item. A beam search comes first: the k-th best of all items is at least as likely as its k-th
    item. Then all prefixes at least that likely which the beams left out are read, depth by depth, many at once.

    Args:
        prefix: one sequence a history (G = 1), the next token being the item's first.
        top: k; fewer where the catalogue is smaller.
        beams: width of the first search, at least 1; it changes the time taken, not the result.

    Returns:
        items [B, k] and their log-probabilities [B, k] in float32, best first, and whether the beam search
        alone would have given these items [B].
    """
    top = min(top, trie.nodes[-1])
    search = _Search(prefix.shared(), trie, beams)
    beam_items, beam_best = best_items(trie, search.nodes[-1], search.children[-1], top)
    if beam_best.shape[1] == top:
        bound = beam_best[:, -1:] - _ROUNDING  # -inf where the beams reached fewer than k items
    else:
        bound = beam_best.new_full((len(beam_best), 1), -torch.inf)
    items, best = torch.zeros(len(bound), top, dtype=torch.long, device=bound.device), bound.new_empty(len(bound), top)
    left = [(children >= bound) & (children > -torch.inf) for children in search.unread]
    counts = torch.stack([mask.sum(1) for mask in left]).amax(0)  # [B], at the depth where most were left out
    order = counts.argsort()
    start = 0
    while start < len(order):
        # histories of similar numbers together, fewer of them where the numbers are large
        size = 1
        while start + size < len(order) and (size + 1) * int(counts[order[start + size]]) <= _TOKENS and size < 64:
            size += 1
        rows = order[start : start + size]
        items[rows], best[rows] = search.complete(rows, bound[rows], top)
        start += size
    exact = torch.zeros(len(bound), dtype=torch.bool, device=bound.device)
    if beam_items.shape == items.shape:
        exact = (beam_items == items).all(1)
    return items, best, exact


class _Search:
    """A beam search that remembers, for every depth, what it read and what it left out.

    Attributes:
        prefixes: what was read up to depth 0 .. m - 1, [B, W_d] sequences.
        nodes: of the trie, reached by them [B, W_d].
        children: scores of their children [B, W_d * C_d].
        unread: the same for depths 1 .. m - 1, -inf at the children that were read.
    """

    def __init__(self, prefix: Prefix, trie: Trie, beams: int) -> None:
        self.trie = trie
        nodes = torch.zeros(len(prefix.hidden), 1, dtype=torch.long, device=prefix.hidden.device)
        scores = torch.zeros_like(nodes, dtype=torch.float32)
        self.prefixes, self.nodes = [prefix], [nodes]
        self.children, self.unread = [child_scores(prefix, trie, 0, nodes, scores)], []
        for depth in range(trie.levels - 1):
            scores, best = self.children[depth].topk(min(beams, self.children[depth].shape[1], trie.nodes[depth]), 1)
            self.unread.append(self.children[depth].scatter(1, best, -torch.inf))
            self._read(depth, self.prefixes, self.nodes, self.children, best, scores)

    def _read(
        self,
        depth: int,
        prefixes: list[Prefix],
        nodes: list[Tensor],
        children: list[Tensor],
        best: Tensor,
        scores: Tensor,
    ) -> None:
        """Read the children ``best`` of the last entries of the lists, and append what that gives to them."""
        trie = self.trie
        parents = best.div(trie.widest[depth], rounding_mode="floor")
        places = (best - parents * trie.widest[depth]).masked_fill(scores == -torch.inf, 0)
        reached, codes = trie.child(depth, nodes[-1].gather(1, parents), places)
        tokens = codes + prefixes[-1].tokens.level(depth).start
        prefixes.append(prefixes[-1].select(parents).read(tokens[..., None]))
        nodes.append(reached)
        children.append(child_scores(prefixes[-1], trie, depth + 1, reached, scores))

    def complete(self, rows: Tensor, bound: Tensor, top: int) -> tuple[Tensor, Tensor]:
        """Read whatever else is at least as likely as ``bound`` [R, 1]; items and scores [R, top]."""
        trie = self.trie
        prefix, nodes, children = self.prefixes[0].take(rows), self.nodes[0][rows], self.unread[0][rows]
        for depth in range(trie.levels - 1):
            scores = children.masked_fill(children < bound, -torch.inf)
            width = int((scores > -torch.inf).sum(1).max())
            if width * len(rows) > 8 * _TOKENS and len(rows) > 1:
                halves = zip(rows.chunk(2), bound.chunk(2))
                parts = [self.complete(some, their_bound, top) for some, their_bound in halves]
                return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])
            scores, best = scores.topk(width, 1)
            prefixes, reached, found = [prefix], [nodes], []
            self._read(depth, prefixes, reached, found, best, scores)
            # the beams' prefixes of this depth and what was left out below them, in front of what was read now
            prefix = self.prefixes[depth + 1].take(rows).join(prefixes[-1])
            nodes = torch.cat([self.nodes[depth + 1][rows], reached[-1]], 1)
            left = self.unread[depth + 1] if depth + 2 < trie.levels else self.children[depth + 1]
            children = torch.cat([left[rows], found[-1]], 1)
        return best_items(trie, nodes, children, top)
