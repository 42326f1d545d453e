"""Ranking by the mean likelihood of several prefixes of one history: an ensemble that shares its weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from recbole_stream.data.histories import right_padded
from recbole_stream.data.samples import trim
from recbole_stream.decoding.beam import beam_search, score_items
from recbole_stream.decoding.exact import score_catalogue
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.prefix import Prefix
from recbole_stream.model.rivals.latte import LatteModel

__all__ = ["MixtureRanker", "rank_mixture"]

_HISTORIES = 64  # that are ranked at once


def rank_mixture(prefixes: list[Prefix], trie: Trie, beams: int, top: int) -> tuple[Tensor, Tensor]:
    """The best items by the mean of their probabilities after S prefixes.

    Candidates are what a beam search after each prefix finds; each of them is scored exactly after all prefixes.

    Args:
        prefixes: S of them, each with one sequence a history (G = 1).
        trie: of the catalogue.
        beams: width of each search.
        top: items wanted.

    Returns:
        items [B, W] and the logarithms of their mean probabilities, best first; item 0 with -inf where there is none.
    """
    items = torch.cat([beam_search(prefix, trie, beams)[0] for prefix in prefixes], 1).sort(1).values
    twice = torch.zeros_like(items, dtype=torch.bool)
    twice[:, 1:] = items[:, 1:] == items[:, :-1]
    items = items.masked_fill(twice, 0)
    scores = _mean([score_items(prefix, items) for prefix in prefixes]).masked_fill(items == 0, -torch.inf)
    best, order = scores.topk(min(top, scores.shape[1]), 1)
    return items.gather(1, order), best


def _mean(scores: list[Tensor]) -> Tensor:
    return torch.stack(scores).logsumexp(0) - math.log(len(scores))


class MixtureRanker(Ranker):
    """A :class:`Ranker` of a model with several paths from a history to an item."""

    network: LatteModel

    @torch.no_grad()
    def _rank(self, histories: Tensor, top: int) -> tuple[Tensor, Tensor]:
        beams = max(self.beams, top)
        parts = histories.split(_HISTORIES)
        found = [rank_mixture(self.network.paths(trim(part)), self.trie, beams, top) for part in parts]
        width = max(items.shape[1] for items, _ in found)
        pad = torch.nn.functional.pad
        items = torch.cat([pad(items, (0, width - items.shape[1])) for items, _ in found])
        return items, torch.cat([pad(best, (0, width - best.shape[1]), value=-torch.inf) for _, best in found])

    @torch.no_grad()
    def scores_of_all(self, histories: Tensor) -> Tensor:
        parts = right_padded(histories, self.longest).split(_HISTORIES)
        return torch.cat(
            [_mean([score_catalogue(path, self.trie) for path in self.network.paths(trim(part))]) for part in parts]
        )

    @torch.no_grad()
    def scores(self, histories: Tensor, items: Tensor) -> Tensor:
        paths = self.network.paths(right_padded(histories, self.longest))
        return _mean([score_items(path, items) for path in paths])
