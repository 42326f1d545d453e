"""Beam search that only walks prefixes of existing items, and exact item scores."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.decoding.trie import Trie
from recbole_stream.model.prefix import Prefix

__all__ = ["beam_search", "best_items", "child_scores", "score_items", "score_shared_items", "token_log_probs"]

_SHARED_ROWS = 128  # histories times sequences that are scored at once


def beam_search(prefix: Prefix, trie: Trie, beams: int, top: int | None = None) -> tuple[Tensor, Tensor]:
    """The most likely items after a prefix, by beam search over the trie.

    Args:
        prefix: one sequence a history (G = 1), the next token being the item's first.
        beams: prefixes kept at every depth.
        top: how many items are wanted, by default as many as beams. With fewer the result is the same and comes
            sooner: no item is likelier than its prefix, so the last token of unlikely prefixes is not predicted.

    Returns:
        items [B, W] and their exact log-probabilities [B, W] in float32, best first, W = min(top, beams,
        n_items). Places that no item reached hold item 0 with -inf.
    """
    tokens, last = prefix.tokens, trie.levels - 1
    top = beams if top is None else min(top, beams)
    prefix = prefix.shared()
    nodes = torch.zeros(len(prefix.hidden), 1, dtype=torch.long, device=prefix.hidden.device)
    scores = child_scores(prefix, trie, 0, nodes, torch.zeros_like(nodes, dtype=torch.float32))
    for depth in range(last):
        scores, best = scores.topk(min(beams, scores.shape[1], trie.nodes[depth]), 1)
        parents, places = _split(best, trie.widest[depth])
        nodes, codes = trie.child(depth, nodes.gather(1, parents), places.masked_fill_(scores == -torch.inf, 0))
        read = codes + tokens.level(depth).start
        if depth + 1 == last and top < beams:
            return _last_level(prefix, trie, nodes, scores, parents, read, top)
        prefix = prefix.select(parents).read(read[..., None])
        scores = child_scores(prefix, trie, depth + 1, nodes, scores)
    return best_items(trie, nodes, scores, min(beams, trie.nodes[last]) if top == beams else top)


def child_scores(prefix: Prefix, trie: Trie, depth: int, nodes: Tensor, scores: Tensor) -> Tensor:
    """log P of all children of nodes at ``depth``: nodes and their scores [B, W] -> [B, W * C], -inf where none is."""
    log_probs = prefix.log_probs()[..., prefix.tokens.level(depth)]  # [B, W, K]
    _, codes, exists = trie.expand(depth, nodes)
    return (scores[..., None] + log_probs.gather(2, codes)).masked_fill_(~exists, -torch.inf).flatten(1)


def best_items(trie: Trie, nodes: Tensor, scores: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The best children of the last but one depth: nodes [B, W], :func:`child_scores` [B, W * C] -> [B, top] twice."""
    last = trie.levels - 1
    scores, best = scores.topk(min(top, scores.shape[1], trie.nodes[last]), 1)
    parents, places = _split(best, trie.widest[last])
    missing = scores == -torch.inf
    items = trie.items[trie.child(last, nodes.gather(1, parents), places.masked_fill_(missing, 0))[0]].long()
    return items.masked_fill_(missing, 0), scores


def _split(best: Tensor, widest: int) -> tuple[Tensor, Tensor]:
    """Places within [W * C] -> parents (within W) and places among their children (within C)."""
    parents = best.div(widest, rounding_mode="floor")
    return parents, best - parents * widest


def _last_level(
    prefix: Prefix, trie: Trie, nodes: Tensor, scores: Tensor, parents: Tensor, read: Tensor, top: int
) -> tuple[Tensor, Tensor]:
    """Predict the last token of the best prefixes, then of those others that may still hold one of the top items.

    Args:
        prefix: what has been read, without the tokens ``read``.
        nodes, scores, parents, read: prefixes of m - 1 tokens, best first, [B, W].
    """
    last, some = trie.levels - 1, min(nodes.shape[1], top + top // 2)
    first = prefix.select(parents[:, :some]).read(read[:, :some, None])
    found = child_scores(first, trie, last, nodes[:, :some], scores[:, :some])
    items, best = best_items(trie, nodes[:, :some], found, top)
    if some == nodes.shape[1]:
        return items, best
    if not nodes.is_cpu:  # sizes that depend on data would make the host wait for the GPU
        rest, width = torch.arange(len(nodes), device=nodes.device), nodes.shape[1]
    else:
        bound = best[:, -1:] if best.shape[1] == top else -torch.inf
        count = ((scores >= bound) & (scores > -torch.inf)).sum(1)
        rest, width = (count > some).nonzero()[:, 0], int(count.max())
        if not len(rest):
            return items, best
    others = slice(some, width)
    second = prefix.take(rest).select(parents[rest, others]).read(read[rest, others, None])
    more, more_best = best_items(
        trie, nodes[rest, others], child_scores(second, trie, last, nodes[rest, others], scores[rest, others]), top
    )
    both, order = torch.cat([best[rest], more_best], 1).sort(dim=1, descending=True, stable=True)
    best[rest] = both[:, : best.shape[1]]
    items[rest] = torch.cat([items[rest], more], 1).gather(1, order[:, : best.shape[1]])
    return items, best


def score_items(prefix: Prefix, items: Tensor) -> Tensor:
    """Exact log P(item | prefix) for C items a history.

    Args:
        prefix: one sequence a history (G = 1).
        items: ids [B, C].

    Returns:
        [B, C] in float32.
    """
    tokens = token_log_probs(prefix, items)
    return tokens[..., 0] + tokens[..., 1:].sum(-1)


def token_log_probs(prefix: Prefix, items: Tensor) -> Tensor:
    """log P of each token of items [B, C] after the prefix and the item's tokens before it: [B, C, m] in float32."""
    tokens = prefix.tokens
    labels = tokens.table[items]  # [B, C, m]
    first = prefix.log_probs().squeeze(1).gather(1, labels[..., 0])  # [B, C]
    hidden = prefix.shared().read(labels[..., :-1]).hidden  # [B, C, m - 1, H]
    rest = torch.log_softmax(tokens.logits(hidden).float(), -1).gather(-1, labels[..., 1:, None])
    return torch.cat([first[..., None], rest.squeeze(-1)], -1)


def score_shared_items(prefix: Prefix, items: Tensor) -> Tensor:
    """As :func:`score_items`, for G sequences a history that share their C items.

    Similar items begin with the same tokens: every distinct prefix among a history's items is read once
    instead of once an item, for histories with a similar number of them at a time.

    Args:
        prefix: G sequences a history.
        items: ids [B, C].

    Returns:
        [B, G, C] in float32.
    """
    groups, tokens = prefix.hidden.shape[1], prefix.tokens
    if not items.is_cpu:  # sizes that depend on data would make the host wait for the GPU
        return score_items(prefix.flatten(), items.repeat_interleave(groups, 0)).unflatten(0, (-1, groups))
    labels = tokens.table[items]  # [B, C, m]
    slots = [_number_prefixes(labels[..., : depth + 1]) for depth in range(tokens.levels - 1)]
    counts = slots[-1].amax(1) + 1
    scores = torch.empty(len(items), groups, items.shape[1], device=items.device)
    for rows in counts.argsort().split(max(1, _SHARED_ROWS // groups)):
        part = _score_tree(prefix.take(rows).flatten(), labels[rows], [slot[rows] for slot in slots], groups)
        scores[rows] = part.unflatten(0, (-1, groups))
    return scores


def _number_prefixes(labels: Tensor) -> Tensor:
    """Number the distinct rows of each [C, d]: [B, C, d] -> [B, C], equal where the tokens are, from 0 in each history."""
    keys = torch.zeros_like(labels[..., 0])
    for column in labels.unbind(-1):
        # renumbered at every token: a product of many vocabularies would not fit 64 bits
        keys = keys * (int(labels.max()) + 1) + column
        ordered, order = keys.sort(dim=1, stable=True)
        fresh = torch.zeros_like(keys)
        fresh[:, 1:] = (ordered[:, 1:] != ordered[:, :-1]).long()
        keys = torch.empty_like(keys).scatter_(1, order, fresh.cumsum(1))
    return keys


def _score_tree(prefix: Prefix, labels: Tensor, slots: list[Tensor], groups: int) -> Tensor:
    """Scores [B * groups, C] of items [B, C, m] after one sequence each of B * groups histories, by :func:`_number_prefixes`."""
    repeat = lambda tensor: tensor.repeat_interleave(groups, 0)  # noqa: E731
    vocabulary = prefix.tokens.vocabulary
    scores = prefix.log_probs().squeeze(1).gather(1, repeat(labels[..., 0]))
    above = torch.zeros_like(slots[0])
    for depth, slot in enumerate(slots):
        width = int(slot.max()) + 1
        empty = slot.new_zeros(len(slot), width)
        # equal prefixes write equal tokens and parents to their one place; places beyond a history's own read token 0
        read = empty.scatter(1, slot, labels[..., depth])
        prefix = prefix.select(repeat(empty.scatter(1, slot, above))).read(repeat(read)[..., None])
        wanted = slot * vocabulary + labels[..., depth + 1]
        scores = scores + prefix.log_probs().flatten(1).gather(1, repeat(wanted))
        above = slot
    return scores
