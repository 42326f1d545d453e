"""The pointer: a small network that learns from training prefixes which of the items looked up comes next.

The verifier learns from validation users, who are few; each prefix of a training sequence has a next item, too, once its
own sequence is taken out of the memory. From these the pointer learns to read more of the memory than one share of
transitions: each direction apart, direct neighbours apart, counts beside shares, the latest item alone. It scores a few
candidates, as its namesakes point at what they read (Vinyals et al., NeurIPS 2015; See et al., ACL 2017).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.lookup import UNSEEN, Followers, Transitions, recency_weights
from recbole_stream.model.verifier import Scorer, closest, log_lengths

__all__ = ["FEATURES", "SUMS", "Pairs", "Pointer", "latest", "latest_text", "pair_sums", "sum_features"]

# what is counted of an item of the history and a candidate: events of the candidate up to a window after the item, near
# ones more; events directly after it; and both the other way round
KINDS = 4
SUMS = 15  # what :func:`pair_sums` gives
FEATURES = SUMS + 4 + 6


class Pairs(nn.Module):
    """More of the pairs of items that a :class:`Transitions` has counted.

    Attributes:
        counts: of each pair [P, 4], see ``KINDS``.
        totals: of each item [n_items, 4]: the sums over its pairs.

    Args:
        transitions: whose pairs.
        ahead: weighted counts of the second item after the first [P].
        direct: how often the second came directly after the first [P].
    """

    def __init__(self, transitions: Transitions, ahead: Tensor, direct: Tensor) -> None:
        super().__init__()
        rows, columns, _ = transitions.pairs()
        one_way = torch.stack([ahead, direct], -1)
        place, there = transitions.find(columns, rows)
        back = one_way[place] * there[:, None] if len(one_way) else one_way
        counts = torch.cat([one_way, back], -1)
        totals = torch.zeros(transitions.n_items, KINDS, device=counts.device).index_add_(0, rows, counts)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("totals", totals, persistent=False)

    @classmethod
    def counted(cls, transitions: Transitions, count: Callable[..., Transitions]) -> Pairs:
        """From the sequences: those of the window and the direct neighbours, in one direction each.

        Args:
            transitions: whose pairs.
            count: a memory of the same sequences with all pairs, other values of ``window`` and ``backward`` given by name.
        """
        rows, columns, _ = transitions.pairs()
        ahead = count(backward=0.0).counts_of(rows, columns)
        return cls(transitions, ahead, count(window=1, backward=0.0).counts_of(rows, columns))

    @property
    def one_way(self) -> Tensor:
        """What the constructor takes, [P, 2]."""
        return self.counts[:, :2]

    def sums(self, histories: Tensor, followed: Followers, place: Tensor, there: Tensor, recency: float) -> Tensor:
        """What is counted of histories and candidates, [B, C, 15]; see :func:`pair_sums`.

        Args:
            histories: item ids [B, L].
            followed: of the same histories.
            place, there: of the candidates, see :meth:`Followers.find` [B, C].
            recency: weight of an item of the history against the one after it.
        """
        asked = torch.zeros(len(followed.cells) + 1, dtype=torch.bool, device=place.device)
        asked[place[there]] = True
        group = asked.cumsum(0) - 1  # place among the cells that are asked for
        kept = asked[followed.inverse].nonzero()[:, 0]
        owner = followed.owner[kept]
        values = pair_sums(
            self.counts[followed.place[kept]],
            self.totals[histories.flatten()[owner]],
            recency_weights(histories, recency).flatten()[owner],
            latest(histories).flatten()[owner],
        )
        found = torch.zeros(int(group[-1]) + 2, SUMS, device=place.device)
        found.index_add_(0, group[followed.inverse[kept]], values)
        return found[torch.where(there, group[place], -1)]  # the last row is of no cell


def pair_sums(counts: Tensor, totals: Tensor, weights: Tensor, latest: Tensor) -> Tensor:
    """What a pair of an item of a history and a candidate adds to the candidate's sums.

    Args:
        counts: of the pair [.., 4].
        totals: of the history's item, over all its pairs [.., 4].
        weights: of the history's item by recency [..].
        latest: whether it is the latest of the history [..].

    Returns:
        [.., 15]: shares (counts by totals) and counts, weighted; shares ahead and counts of the latest item; whether
        anything was counted.
    """
    shares = counts / totals.clamp(min=1e-6)
    weight, last = weights[..., None], latest[..., None].to(counts.dtype)
    linked = (counts[..., :1] + counts[..., 2:3] > 0).to(counts.dtype)
    return torch.cat([weight * shares, weight * counts, last * shares[..., :2], last * counts, linked], -1)


def sum_features(sums: Tensor) -> Tensor:
    """The logarithms of :func:`pair_sums`, summed over a history: shares as in the view ``transitions``. [.., 15]."""
    shares = (sums[..., [0, 1, 2, 3, 8, 9]] + UNSEEN).log()
    return torch.cat([shares, sums[..., [4, 5, 6, 7, 10, 11, 12, 13, 14]].log1p()], -1)


def latest_text(histories: Tensor, cosines: Tensor) -> Tensor:
    """The cosine of a candidate with the latest item of the history: ids [B, L], cosines [B, C, L] -> [B, C]."""
    return torch.einsum("bcl,bl->bc", cosines, latest(histories).to(cosines.dtype))


def latest(histories: Tensor) -> Tensor:
    """Where the latest item of each history is, bool [B, L]."""
    return (histories > 0) & (F.pad(histories, (0, 1))[:, 1:] == 0)


class Pointer(Scorer):
    """The network, with what it reads of the memory.

    Args:
        size: of the hidden layer.
        pairs: the memory.
        popularity: training events of every item [n_items + 1].
    """

    def __init__(self, size: int, pairs: Pairs, popularity: Tensor) -> None:
        super().__init__(FEATURES, size)
        self.size, self.pairs = size, pairs
        self.register_buffer("popularity", popularity.float().log1p(), persistent=False)

    def features(
        self, histories: Tensor, items: Tensor, views: Tensor, cosines: Tensor | None, sums: Tensor, recency: float
    ) -> Tensor:
        """All that it reads of candidates, [B, C, 25].

        Args:
            histories, items, cosines: see :meth:`Verifier.features`.
            views: ``transitions`` and ``text`` [B, C, 2].
            sums: of :func:`pair_sums` over each history [B, C, 15].
            recency: weight of an item of the history against the one after it.
        """
        totals = self.pairs.totals[histories][..., :2]  # [B, L, 2]
        whole = (recency_weights(histories, recency)[..., None] * totals).sum(1)
        last = (latest(histories)[..., None] * totals).sum(1)
        own = torch.cat([whole.log1p(), last.log1p(), log_lengths(histories)], -1)  # of the history alone
        if cosines is None:
            texts = torch.zeros_like(views)
        else:
            texts = torch.stack([closest(histories, cosines), latest_text(histories, cosines)], -1)
        popular = self.popularity[items][..., None]
        return torch.cat([sum_features(sums), views, texts, popular, own[:, None].expand(-1, items.shape[1], -1)], -1)
