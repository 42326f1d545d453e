"""Deliberation: an item's score is a weighted sum of several views of the history.

A view scores every item of the catalogue. One view is the likelihood P(item | history, reasoning). The others use
what the likelihood does not have: the match of a state with each item's own vector, the items that followed the
history's items in other users' sequences, items with similar texts, and whether the user has the item already. Which
views are useful differs between data sets, so the weights are fitted on the validation split
(:func:`recbole_stream.training.view_weights.choose_weights`).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from recbole_stream.model.item_index import ItemIndex
from recbole_stream.model.lookup import Content, Transitions, log_shares
from recbole_stream.model.matching import Matcher
from recbole_stream.model.pointer import Pointer
from recbole_stream.model.verifier import Verifier
from recbole_stream.model.views import BatchViews

__all__ = ["LEAST", "RANKINGS", "VIEWS", "Deliberation"]

VIEWS = ("likelihood", "matching", "transitions", "text", "repeats")

# Lower bounds of the weights. A high value of a view is evidence for an item, so a negative weight would only fit noise;
# having the item already may count for it or against it.
LEAST = (0.0, 0.0, 0.0, 0.0, None)
RANKINGS = ("likelihood", "states", "deliberation")


class Deliberation(nn.Module):
    """The views beside the likelihood, and the weights of all.

    Attributes:
        used: which views there are, in the order of ``VIEWS``; the others are 0 and weigh nothing.
        weights: of the views, [5].
        index: by which the best items are found where it is not None; otherwise all items are gone through.
        ranking: index into ``RANKINGS``: which scores the model ranks by.

    Args:
        matcher: the matching tower.
        transitions: the memory of training sequences.
        content: similarity of texts; None where items have no text (the view is then 0).
        switched_off: see :meth:`switch_off`.
        verifier: scores the candidates in place of the weighted sum where it is trusted; None: the sum always does.
        pointer: what the verifier reads of the memory beside the views; None: nothing.
    """

    def __init__(
        self,
        matcher: Matcher,
        transitions: Transitions,
        content: Content | None,
        switched_off: tuple[str, ...] = (),
        verifier: Verifier | None = None,
        pointer: Pointer | None = None,
    ) -> None:
        super().__init__()
        self.matcher, self.transitions, self.content, self.verifier = matcher, transitions, content, verifier
        self.index: ItemIndex | None = None
        self.pointer = pointer
        self.used = tuple(not (view == "text" and content is None) for view in VIEWS)
        self.switch_off(switched_off)
        self.register_buffer("weights", self.first_weights())
        self.register_buffer("ranking", torch.zeros((), dtype=torch.long))
        self.requires_grad_(False)

    def switch_off(self, views: Collection[str]) -> None:
        """Leave some views out from here on: neither the weighted sum nor the verifier sees them.

        Call this before the weights are fitted.
        """
        self.used = tuple(used and view not in views for view, used in zip(VIEWS, self.used))

    def first_weights(self) -> Tensor:
        """Weights by which candidates are found before any have been fitted, [5]."""
        return torch.tensor([0.1, 0.5, 0.5, 1.0, -3.0]) * torch.tensor(self.used)

    @property
    def generates(self) -> bool:
        """Whether the likelihood has a weight above 0; it takes far more time than all other views together."""
        return bool(self.weights[0] != 0)

    @property
    def verified(self) -> bool:
        """Whether the verifier ranks the candidates."""
        return self.verifier is not None and bool(self.verifier.trusted)

    def score(self, seen: BatchViews, items: Tensor, views: Tensor) -> Tensor:
        """By what candidates are ranked, [B, C]; arguments as in :meth:`features`."""
        if self.verified:
            return self.verifier(self.features(seen, items, views))
        return (views * self.weights).sum(-1)

    def features(self, seen: BatchViews, items: Tensor, views: Tensor) -> Tensor:
        """What the verifier reads of candidates, [B, C, F].

        Args:
            seen: of the same histories.
            items: ids of the candidates [B, C].
            views: of them [B, C, 5].
        """
        pointed = None if self.pointer is None else self.pointer(self.pointed(seen, items, views))
        return self.verifier.features(seen.histories, items, views, seen.cosines(items), pointed)

    def pointed(self, seen: BatchViews, items: Tensor, views: Tensor) -> Tensor:
        """What the pointer reads of candidates, [B, C, F]; arguments as in :meth:`features`."""
        some, recency = views[..., 2:4], self.transitions.recency
        return self.pointer.features(seen.histories, items, some, seen.cosines(items), seen.sums(items), recency)

    def views_of(self, histories: Tensor, vectors: Tensor | None = None) -> BatchViews:
        """All views but the likelihood, of item ids [B, L]: the best items by them, or those of given items."""
        return BatchViews(self, histories, vectors, self.used)

    def states_of(self, histories: Tensor, vectors: Tensor | None = None) -> BatchViews:
        """The same of the view ``matching`` alone, also where it is switched off."""
        return BatchViews(self, histories, vectors, [view == "matching" for view in VIEWS])

    def catalogue(self, histories: Tensor, vectors: Tensor | None = None) -> Tensor:
        """All views but the likelihood of all items, 0 where they are switched off.

        Item ids [B, L] -> [B, n_items + 1, 4]; ``vectors`` as for the matcher. To rank, :meth:`views_of` takes less.
        """
        blank = torch.zeros(len(histories), self.transitions.n_items, device=histories.device)
        _, matching, transitions, text, repeats = self.used
        views = [blank] * 4
        if matching:
            views[0] = self.matcher(histories, vectors).log_softmax(-1)
            views[0][:, 0] = 0.0  # the padding item is never shown; any finite number will do
        if transitions:
            views[1] = log_shares(self.transitions(histories))
        if text:
            views[2] = self.content(histories)
        if repeats:
            views[3] = blank.scatter(1, histories, 1.0)
        return torch.stack(views, -1)
