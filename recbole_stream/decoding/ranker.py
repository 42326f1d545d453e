"""Ranking by whatever a model ranks by now: its likelihood, its states or all views."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_stream.data.histories import right_padded
from recbole_stream.data.samples import trim
from recbole_stream.data.seen import Seen
from recbole_stream.decoding.exact import rank_items_exactly, score_catalogue
from recbole_stream.decoding.rank import item_log_probs, rank_items, thought
from recbole_stream.decoding.rank_by_views import (
    all_state_scores,
    all_view_scores,
    deliberate,
    rank_by_states,
    state_scores,
    view_scores,
)
from recbole_stream.decoding.trie import Trie
from recbole_stream.decoding.unseen import rank_unseen
from recbole_stream.model.deliberation import RANKINGS
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel

__all__ = ["Ranker"]

_HISTORIES = 128  # whose items are all scored at once


@dataclass
class Ranker:
    """Histories in, ranked items out. Histories may be padded on either side and of any length.

    Attributes:
        network: the model.
        trie: of the catalogue.
        beams: width of the search; it becomes as wide as the number of items asked for.
        candidates: of the deliberation, beside those of the search.
        longest: the latest items of a history, which are read.
        exact: whether the likelihood is searched until no likelier item is left.
    """

    network: TIGERModel | STREAMRecModel
    trie: Trie
    beams: int
    candidates: int
    longest: int
    exact: bool = False

    @property
    def ranking(self) -> str:
        """One of ``RANKINGS``."""
        slow = getattr(self.network, "deliberation", None)
        return RANKINGS[0 if slow is None else int(slow.ranking)]

    def rank(self, histories: Tensor, top: int, seen: Seen | None = None) -> tuple[Tensor, Tensor]:
        """The best ``top`` items of histories, item ids [B, L], and their scores, both [B, top], best first.

        Scores are log-probabilities unless all views are weighed.

        Args:
            histories: item ids.
            top: items wanted.
            seen: what is not to be recommended; None leaves nothing out.
        """
        if seen is None:
            return self._rank(right_padded(histories, self.longest), top)
        width, most = max(top, self.beams), self.network.tokens.n_items - 1
        return rank_unseen(self.rank, histories, seen, top, width, most)

    def _rank(self, histories: Tensor, top: int) -> tuple[Tensor, Tensor]:
        if self.ranking == "states":
            return rank_by_states(self.network, histories, top)
        if self.ranking == "deliberation":
            return deliberate(self.network, histories, self.trie, self.beams, self.candidates, top)
        if self.exact:
            return rank_items_exactly(self.network, histories, self.trie, top, self.beams)[:2]
        return rank_items(self.network, histories, self.trie, self.beams, top)

    @torch.no_grad()
    def scores_of_all(self, histories: Tensor) -> Tensor:
        """Exact scores of all items, [B, n_items + 1]; -inf for the padding item.

        Nothing is searched: each item's tokens are read, which for large catalogues takes many times as long as
        :meth:`rank`.
        """
        histories = right_padded(histories, self.longest)
        if self.ranking == "states":
            return all_state_scores(self.network, histories)
        if self.ranking == "deliberation":
            return all_view_scores(self.network, histories, self.trie, self.beams, self.candidates)
        parts = histories.split(_HISTORIES)
        return torch.cat([score_catalogue(thought(self.network, trim(part)), self.trie) for part in parts])

    @torch.no_grad()
    def scores(self, histories: Tensor, items: Tensor) -> Tensor:
        """Scores of given items [B, C], each as if it were a candidate: [B, C]."""
        histories = right_padded(histories, self.longest)
        if self.ranking == "states":
            return state_scores(self.network, histories, items)
        if self.ranking == "deliberation":
            return view_scores(self.network, histories, items)
        return item_log_probs(self.network, histories, items)
