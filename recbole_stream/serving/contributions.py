"""What each view adds to an item's score; base and contributions sum to it.

Every contribution is measured from an item for which nothing speaks, whose score is the base. So a positive number is
a reason for an item and a negative one a reason against it, which log-probabilities as they are could not show.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from recbole_stream.decoding.rank import item_log_probs
from recbole_stream.decoding.rank_by_views import item_views, state_scores
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.lookup import UNSEEN
from recbole_stream.model.tiger import TIGERModel

__all__ = ["NAMES", "Contributions", "contributions", "neutral_views", "shapley_values"]

NAMES = (*VIEWS, "pointer")  # what is said to add to a score, in the order in which the verifier reads it


@dataclass
class Contributions:
    """Of C items for each of B histories; ``base + views.sum(-1) + verifier`` is the score.

    Attributes:
        names: the V views that count, and ``pointer`` where it does.
        values: of the views, as the model weighs them [B, C, V].
        views: what each adds to the score [B, C, V].
        verifier: what its other features add [B, C]; 0 where no verifier is trusted.
        base: the score of an item for which nothing speaks [B, C].
    """

    names: tuple[str, ...]
    values: Tensor
    views: Tensor
    verifier: Tensor
    base: Tensor

    @property
    def scores(self) -> Tensor:
        """By what the items are ranked, [B, C]."""
        return self.base + self.views.sum(-1) + self.verifier


def shapley_values(value: Callable[[Tensor], Tensor], features: Tensor, baseline: Tensor) -> Tensor:
    """Exact Shapley values of the features, over all 2^F sets of them.

    phi_i = sum over sets S without i of |S|! (F - |S| - 1)! / F! (v(S + i) - v(S)), where v(S) is the value of an item
    that has the features of S and the baseline's else (Shapley 1953; Lundberg and Lee, NeurIPS 2017, Eq. 4).

    Args:
        value: features [.., F] -> [..].
        features: [.., F]; F is small, since ``value`` is computed 2^F times.
        baseline: the same shape.

    Returns:
        [.., F] in float64; their sum is ``value(features) - value(baseline)``.
    """
    count = features.shape[-1]
    sets = torch.arange(2**count, device=features.device)[:, None] >> torch.arange(count, device=features.device) & 1
    chosen = sets.bool().view(-1, *[1] * (features.dim() - 1), count)
    values = value(torch.where(chosen, features, baseline)).double()  # [2^F, ..]
    size = sets.sum(1, keepdim=True)
    shares = torch.tensor(
        [1.0 / (count * math.comb(count - 1, n)) for n in range(count)], dtype=torch.float64, device=features.device
    )  # n! (F - n - 1)! / F!
    weights = torch.where(sets.bool(), shares[(size - 1).clamp(min=0)], -shares[size.clamp(max=count - 1)])
    return torch.einsum("sf,s...->...f", weights, values)


def neutral_views(n_items: int) -> Tensor:
    """The views of an item of which they know nothing, in the order of ``VIEWS``.

    The likelihood and the match take all of ``n_items`` items for equally probable; the item never followed the
    history's items, shares nothing with their texts, and was not had before.
    """
    alike = -math.log(n_items)
    known = {"likelihood": alike, "matching": alike, "transitions": math.log(UNSEEN), "text": 0.0, "repeats": 0.0}
    return torch.tensor([known[view] for view in VIEWS])


@torch.no_grad()
def contributions(ranker: Ranker, histories: Tensor, items: Tensor) -> Contributions:
    """Why items have their scores.

    Where the views are summed, a view adds its weight times its distance from :func:`neutral_views`. Where a verifier is
    trusted, what is added are Shapley values of its features. They are measured from an average candidate of the users
    that it was fitted on, since it never saw an item for which nothing speaks. Only the history's length is the
    user's own: it is the same for all of the user's items, no reason for any, and so a part of the base.

    Args:
        ranker: of a STREAM-Rec or TIGER.
        histories: item ids [B, L], 0 as padding on the right, no longer than ``ranker.longest``.
        items: ids [B, C].
    """
    network = ranker.network
    neutral = neutral_views(network.tokens.n_items - 1).to(items.device)
    if ranker.ranking != "deliberation" or isinstance(network, TIGERModel):
        name = "matching" if ranker.ranking == "states" else "likelihood"
        values = (state_scores if ranker.ranking == "states" else item_log_probs)(network, histories, items)
        base = torch.full_like(values, neutral[VIEWS.index(name)])
        return Contributions((name,), values[..., None], (values - base)[..., None], torch.zeros_like(base), base)
    slow = network.deliberation
    values, seen = item_views(network, histories, items)
    if not slow.verified:
        added = slow.weights * (values - neutral)
        base = (slow.weights * neutral).sum().expand(items.shape)
        verifier = torch.zeros_like(base)
    else:
        features = slow.features(seen, items, values)
        baseline = slow.verifier.mean.expand_as(features).clone()
        baseline[..., -1] = features[..., -1]  # the length
        shares = shapley_values(slow.verifier, features, baseline)
        own = len(NAMES) if slow.pointer is not None else len(VIEWS)
        values, added, verifier = features[..., :own], shares[..., :own], shares[..., own:].sum(-1)
        base = slow.verifier(baseline).double()
    places = [place for place, counts in enumerate(_counted(slow)) if counts]
    names = tuple(NAMES[place] for place in places)
    return Contributions(names, values[..., places], added[..., places], verifier, base)


def _counted(slow: Deliberation) -> list[bool]:
    """Which of ``NAMES`` can add anything."""
    counted = [used and (slow.verified or bool(weight)) for used, weight in zip(slow.used, slow.weights)]
    counted[0] &= slow.generates
    return [*counted, slow.verified and slow.pointer is not None]
