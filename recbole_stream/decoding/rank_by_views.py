"""Ranking by deliberation: candidates of all views, each scored by all views."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.data.samples import trim
from recbole_stream.decoding.beam import beam_search, score_items
from recbole_stream.decoding.exact import score_catalogue
from recbole_stream.decoding.rank import thought
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.allocator import keep_freed_memory
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.views import BatchViews

__all__ = [
    "all_state_scores",
    "all_view_scores",
    "candidate_views",
    "deliberate",
    "item_views",
    "rank_by_states",
    "state_scores",
    "view_scores",
]

# limits of what is in memory at once: entries of a [histories, items] matrix, prefixes that are read, and histories
_CATALOGUE, _PREFIXES, _HISTORIES = 1 << 24, 8192, 1024


@torch.no_grad()
def candidate_views(
    model: STREAMRecModel, histories: Tensor, trie: Trie, beams: int, candidates: int, vectors: Tensor | None = None
) -> tuple[Tensor, Tensor, BatchViews]:
    """The candidates of each history, and the value of every view for each of them.

    Candidates are the best items by the weighted sum of all views but the likelihood, and those of the beam search.

    Args:
        histories: item ids [B, L], 0 as padding on the right.
        trie: of the catalogue.
        beams: width of the search.
        candidates: how many come from the views other than the likelihood.
        vectors: of all items, see :meth:`Matcher.forward`.

    Returns:
        items [B, C], 0 where a candidate was found twice, views [B, C, 5] in the order of ``VIEWS``, and what else can be
        seen of the histories. Where the likelihood has no weight, nothing is generated, and the likelihood is 0.
    """
    slow = model.deliberation
    others = slow.views_of(histories, vectors)
    found = others.candidates(candidates, slow.weights[1:].tolist())
    likelihood = torch.zeros_like(found, dtype=torch.float32)
    if slow.generates:
        prefix = thought(model, histories)
        likelihood = score_items(prefix, found)
        reached, log_probs = beam_search(prefix, trie, beams)
        twice = (reached[:, :, None] == found[:, None]).any(-1) | (reached == 0)
        found = torch.cat([found, reached.masked_fill(twice, 0)], 1)
        likelihood = torch.cat([likelihood, log_probs.masked_fill(twice, 0.0)], 1)
    return found, torch.cat([likelihood[..., None], others.of(found)], -1), others


@torch.no_grad()
def deliberate(
    model: STREAMRecModel, histories: Tensor, trie: Trie, beams: int, candidates: int, top: int
) -> tuple[Tensor, Tensor]:
    """The best next items by all views: items [B, top] and their scores [B, top], best first.

    Where ``top`` is more than ``beams`` or ``candidates``, these grow to it.
    """
    keep_freed_memory()
    beams, candidates = max(beams, top), max(candidates, top)
    items, scores, vectors = [], [], model.deliberation.matcher.vectors()
    for part in histories.split(max(1, _PREFIXES // (beams + candidates))):
        part = trim(part)
        found, views, seen = candidate_views(model, part, trie, beams, candidates, vectors)
        verified = model.deliberation.score(seen, found, views).masked_fill(found == 0, -torch.inf)
        best, order = verified.topk(min(top, verified.shape[1]), 1)
        items.append(found.gather(1, order))
        scores.append(best)
    return torch.cat(items), torch.cat(scores)


@torch.no_grad()
def rank_by_states(model: STREAMRecModel, histories: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The best next items by the matching tower alone: items [B, top] and log-probabilities [B, top]."""
    items, scores, slow = [], [], model.deliberation
    vectors = slow.matcher.vectors()
    for part in histories.split(_HISTORIES):
        views = slow.states_of(trim(part), vectors)
        found = views.candidates(top, (1.0, 0.0, 0.0, 0.0))
        items.append(found)
        scores.append(views.of(found)[..., 0].masked_fill(found == 0, -torch.inf))
    return torch.cat(items), torch.cat(scores)


@torch.no_grad()
def all_state_scores(model: STREAMRecModel, histories: Tensor) -> Tensor:
    """log P of every item by the matching tower alone: item ids [B, L] -> [B, n_items + 1], -inf for padding."""
    matcher = model.deliberation.matcher
    vectors = matcher.vectors()
    parts = histories.split(_rows(model, _HISTORIES))
    return torch.cat([matcher(trim(part), vectors).log_softmax(-1) for part in parts])


@torch.no_grad()
def state_scores(model: STREAMRecModel, histories: Tensor, items: Tensor) -> Tensor:
    """log P of given items by the matching tower alone: histories [B, L], items [B, C] -> [B, C]."""
    return model.deliberation.states_of(histories).of(items)[..., 0]


@torch.no_grad()
def all_view_scores(model: STREAMRecModel, histories: Tensor, trie: Trie, beams: int, candidates: int) -> Tensor:
    """The score of every item by all views, searched or not: item ids [B, L] -> [B, n_items + 1], -inf for padding.

    The likelihood is exact. A trusted verifier scores the candidates only, as in :func:`deliberate`; all other items
    follow below them in the order of the weighted sum.
    """
    slow, scores, vectors = model.deliberation, [], model.deliberation.matcher.vectors()
    for part in histories.split(_rows(model, _PREFIXES // (beams + candidates))):
        part = trim(part)
        together = (slow.catalogue(part, vectors) * slow.weights[1:]).sum(-1)
        if slow.generates:
            together[:, 1:] += slow.weights[0] * score_catalogue(thought(model, part), trie)[:, 1:]
        if slow.verified:
            found, views, seen = candidate_views(model, part, trie, beams, candidates, vectors)
            verified = slow.score(seen, found, views)
            lowest = verified.masked_fill(found == 0, torch.inf).amin(1, keepdim=True)
            together[:, 0] = -torch.inf
            highest = together.scatter(1, found, -torch.inf).amax(1, keepdim=True)
            together = (together - highest.clamp(min=-1e30) + lowest - 1).scatter(1, found, verified)
        together[:, 0] = -torch.inf
        scores.append(together)
    return torch.cat(scores)


@torch.no_grad()
def item_views(model: STREAMRecModel, histories: Tensor, items: Tensor) -> tuple[Tensor, BatchViews]:
    """All views of given items, the likelihood 0 where it has no weight, and what else can be seen of the histories.

    Item ids [B, L] and [B, C] -> [B, C, 5].
    """
    slow = model.deliberation
    if slow.generates:
        likelihood = score_items(thought(model, histories), items)
    else:
        likelihood = torch.zeros_like(items, dtype=torch.float32)
    others = slow.views_of(histories)
    return torch.cat([likelihood[..., None], others.of(items)], -1), others


@torch.no_grad()
def view_scores(model: STREAMRecModel, histories: Tensor, items: Tensor) -> Tensor:
    """The score of given items, were they candidates: histories [B, L], items [B, C] -> [B, C]."""
    views, seen = item_views(model, histories, items)
    return model.deliberation.score(seen, items, views)


def _rows(model: STREAMRecModel, most: int) -> int:
    """Histories at once: at most ``most``, and so few that their scores of the catalogue fit."""
    return max(1, min(most, _CATALOGUE // model.tokens.n_items))
