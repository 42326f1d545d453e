"""Beam search that only walks prefixes of existing items, and exact item scores."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.decoding.trie import Trie
from recbole_stream.model.prefix import Prefix

__all__ = ["beam_search", "fill_scores", "score_items"]


def beam_search(prefix: Prefix, trie: Trie, beams: int) -> tuple[Tensor, Tensor]:
    """The most likely items after a prefix, by beam search over the trie.

    Args:
        prefix: one sequence a history (G = 1), the next token being the item's first.
        beams: prefixes kept at every depth.

    Returns:
        items [B, W] and their exact log-probabilities [B, W] in float32, best first, W = min(beams,
        n_items). Places that no item reached hold item 0 with -inf.
    """
    tokens = prefix.tokens
    prefix = prefix.shared()
    batch, device = prefix.hidden.shape[0], prefix.hidden.device
    nodes = torch.zeros(batch, 1, dtype=torch.long, device=device)
    scores = torch.zeros(batch, 1, device=device)
    for depth in range(trie.levels):
        log_probs = prefix.log_probs()[..., tokens.level(depth)]  # [B, W, K]
        children, codes, exists = trie.expand(depth, nodes)
        expanded = scores[..., None] + log_probs.gather(2, codes)  # [B, W, C]
        expanded = expanded.masked_fill(~exists, -torch.inf).flatten(1)
        scores, best = expanded.topk(min(beams, expanded.shape[1], trie.nodes[depth]), 1)
        nodes = children.flatten(1).gather(1, best)
        if depth + 1 < trie.levels:
            parents = best.div(trie.widest[depth], rounding_mode="floor")
            read = codes.flatten(1).gather(1, best) + tokens.level(depth).start
            prefix = prefix.select(parents).read(read[..., None])
    items = trie.items[nodes].long()
    return items.masked_fill(scores == -torch.inf, 0), scores


def score_items(prefix: Prefix, items: Tensor) -> Tensor:
    """Exact log P(item | prefix) for C items a history.

    Args:
        prefix: one sequence a history (G = 1).
        items: ids [B, C].

    Returns:
        [B, C] in float32.
    """
    tokens = prefix.tokens
    labels = tokens.table[items]  # [B, C, m]
    first = prefix.log_probs().squeeze(1).gather(1, labels[..., 0])  # [B, C]
    hidden = prefix.shared().read(labels[..., :-1]).hidden  # [B, C, m - 1, H]
    rest = torch.log_softmax(tokens.logits(hidden).float(), -1).gather(-1, labels[..., 1:, None])
    return first + rest.squeeze(-1).sum(-1)


def fill_scores(items: Tensor, log_probs: Tensor, n_items: int) -> Tensor:
    """Scores for a whole catalogue from what a search reached.

    Args:
        items: [B, W]; 0 where nothing was reached.
        log_probs: [B, W].
        n_items: width of the result, the padding item 0 included.

    Returns:
        [B, n_items] in float32: the log-probability of items that were reached; all others follow below
        every reached one, in the order of their ids, with finite scores. Without that tail a top-k over
        -inf would fill up with arbitrary items that RecBole's evaluator counts.
    """
    reached = items > 0
    floor = log_probs.masked_fill(~reached, torch.inf).amin(1, keepdim=True).clamp(max=0.0)  # [B, 1]
    # steps of one below the floor: exact in float32 for catalogues of up to 2^24 items
    tail = floor.floor() - 1.0 - torch.arange(n_items, device=items.device, dtype=torch.float32)
    scores = tail.scatter(1, items, torch.where(reached, log_probs, tail.gather(1, items)))
    return scores
