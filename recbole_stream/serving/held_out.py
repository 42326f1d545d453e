"""Where the item that really came next stands, for users whose last event is hidden."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.histories import padded, right_padded
from recbole_stream.decoding.exact import score_catalogue
from recbole_stream.decoding.rank import thought
from recbole_stream.decoding.ranker import Ranker
from recbole_stream.model.deliberation import VIEWS
from recbole_stream.serving.evidence import mid_ranks
from recbole_stream.serving.thinking import think

__all__ = ["BAD", "GOOD", "draw_cases", "standing"]

GOOD, BAD = 3, 100  # the worst rank of a good case, and the best that a bad one does not reach
_ROWS = 64  # histories ranked at once


@torch.no_grad()
def standing(ranker: Ranker, history: Sequence[int], target: int, exclude_seen: bool) -> list[tuple[str, float]]:
    """Ranks of an item among the whole catalogue; those of equal scores share the middle of their places.

    Args:
        ranker: of a STREAM-Rec or TIGER.
        history: item numbers, in time.
        target: the item.
        exclude_seen: leave out what the history holds, but for the target.

    Returns:
        name and rank by each reasoning state, each view but ``repeats`` alone and the weighted sum, as far as there are
        any, and last by what the model ranks by.
    """
    whole = padded([history], ranker.trie.items.device)
    read, found = right_padded(whole, ranker.longest), []
    network, slow = ranker.network, getattr(ranker.network, "deliberation", None)

    def rank(scores: Tensor) -> float:
        return float(_ranks(scores, [history], [target], exclude_seen))

    thinking = think(network, read)
    if thinking is not None:
        for step, near in enumerate(thinking.similarities.unbind(1)):
            found.append((f"state after reasoning token {step}" if step else "state before reasoning", rank(near)))
    last = rank(ranker.scores_of_all(whole))
    if ranker.ranking != "deliberation" or slow is None:
        return [*found, ("matching" if ranker.ranking == "states" else "likelihood", last)]
    others = slow.catalogue(read)
    together = (others * slow.weights[1:]).sum(-1)
    if slow.generates:
        likelihood = score_catalogue(thought(network, read), ranker.trie)
        found.append(("likelihood", rank(likelihood)))
        together[:, 1:] += slow.weights[0] * likelihood[:, 1:]
    for view, used, scores in zip(VIEWS[1:], slow.used[1:], others.unbind(-1)):
        if used and view != "repeats":  # which says no more than yes or no
            found.append((view, rank(scores)))
    if slow.verified:
        return [*found, ("weighted sum", rank(together)), ("verifier", last)]
    return [*found, ("weighted sum", last)]


@torch.no_grad()
def draw_cases(
    ranker: Ranker, histories: Sequence[Sequence[int]], count: int, seed: int, exclude_seen: bool
) -> tuple[list[int], list[int]]:
    """Good and bad cases, drawn by chance: users are looked at in random order until there are enough of both.

    Args:
        ranker: ranks.
        histories: of all users, the last item of each being the one to find.
        count: of either kind; fewer where there are not so many.
        seed: of the order.
        exclude_seen: see :func:`standing`.

    Returns:
        rows of histories whose last item ranks 1 to ``GOOD``, and of those where it is beyond ``BAD``.
    """
    rows = np.array([row for row, history in enumerate(histories) if len(history) > 1], dtype=int)
    order = np.random.default_rng(seed).permutation(rows).tolist()
    good: list[int] = []
    bad: list[int] = []
    with tqdm(total=2 * count, desc="Looking for cases", unit=" cases") as bar:
        for start in range(0, len(order), _ROWS):
            part = order[start : start + _ROWS]
            before, targets = [histories[row][:-1] for row in part], [histories[row][-1] for row in part]
            scores = ranker.scores_of_all(padded(before, ranker.trie.items.device))
            for row, rank in zip(part, _ranks(scores, before, targets, exclude_seen).tolist()):
                if rank <= GOOD and len(good) < count:
                    good.append(row)
                elif rank > BAD and len(bad) < count:
                    bad.append(row)
            bar.update(len(good) + len(bad) - bar.n)
            if len(good) == len(bad) == count:
                break
    return good, bad


def _ranks(scores: Tensor, histories: Sequence[Sequence[int]], targets: Sequence[int], exclude_seen: bool) -> Tensor:
    """Ranks of targets [B] by scores [B, n_items + 1]."""
    scores = scores.clone()
    if exclude_seen:
        for row, (history, target) in enumerate(zip(histories, targets)):
            scores[row, [item for item in set(history) if item != target]] = -torch.inf
    return mid_ranks(scores, torch.tensor(targets, device=scores.device)[:, None])[:, 0]
