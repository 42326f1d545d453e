"""Training for deliberation: the matching tower, then on validation users the weights of the views and the verifier."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.decoding.rank_by_views import candidate_views
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import LEAST, RANKINGS, VIEWS
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.training.fit_verifier import verify
from recbole_stream.training.loop import Objective
from recbole_stream.training.processes import broadcast
from recbole_stream.training.view_weights import choose_weights, fit_weights, ranks_among, weigh_held_out

__all__ = ["Learnt", "Match", "collect_views", "learn_to_deliberate"]

_USERS = 128  # whose candidates are scored at once
_KEPT = 1e-3  # the least weight of the likelihood once it is kept: the verifier learns with it


class Match(Objective):
    """Cross-entropy of the next item over the whole catalogue (Eq. 14 with every item as a negative).

    Only the matching tower is trained; what generates stays as it is.

    Args:
        model: with its ``deliberation``; it ranks by states from here on.
    """

    name = "States"

    def __init__(self, model: STREAMRecModel) -> None:
        self.model = model
        model.requires_grad_(False)
        model.deliberation.matcher.requires_grad_(True)
        model.deliberation.ranking.fill_(RANKINGS.index("states"))

    def losses(self, batch: Batch) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        yield F.cross_entropy(self.model.deliberation.matcher(batch.histories), batch.targets), {}


@dataclass
class Learnt:
    """What came of the deliberation's training.

    Attributes:
        message: for the log.
        rows: numbers of the samples that it learnt from [U], on the CPU.
        ranks: of their targets, from 1, by weights and a verifier that were fitted on other users [U]; infinite where
            the target was no candidate. A forecast of what other users will see.
    """

    message: str
    rows: Tensor
    ranks: np.ndarray


def learn_to_deliberate(
    model: STREAMRecModel,
    samples: Samples,
    rows: Tensor,
    trie: Trie,
    beams: int,
    candidates: int,
    seed: int,
    unseen_only: bool = False,
    show_progress: bool = False,
) -> Learnt:
    """Choose the weights of the views, fit them again on the candidates that they find, and train the verifier on these.

    Without any user whose item is a candidate all stays as it is.

    Args:
        model: with its ``deliberation``, by which it ranks from here on.
        samples: of users on whom nothing was trained, on the model's device.
        rows: numbers of the samples to learn from [U], on the CPU.
        trie, beams, candidates: see :func:`candidate_views`.
        seed: of the verifier, and of who is held out when.
        unseen_only: the ranks are those among items that a user does not have.
        show_progress: progress bar.
    """
    slow = model.deliberation
    rows = rows[samples.lengths[rows].argsort(stable=True)]  # the order in which their candidates come

    def collect() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        items, features, targets = collect_views(model, samples, rows, trie, beams, candidates, show_progress)
        hits = items == targets[:, None]
        found = hits.any(1)
        return features[found], hits[found].argmax(1), items[found], found

    slow.ranking.fill_(RANKINGS.index("deliberation"))
    used, least = slow.used, LEAST
    # the weights find other candidates than those that they were fitted on, such as items that the user has: hence twice
    for fit in (choose_weights, fit_weights):
        features, targets, items, found = collect()
        if not len(targets):
            nowhere = np.full(len(rows), np.inf)
            return Learnt("no validation user's item is a candidate; the weights stay", rows, nowhere)
        # one outcome for all processes, whose sums may differ in the last digit
        weights = broadcast(lambda: fit(features[..., : len(VIEWS)], targets, items > 0, used, least))
        slow.weights.copy_(torch.from_numpy(weights))
        used = (bool(weights[0]), *slow.used[1:])
        least = (_KEPT if used[0] else 0.0, *LEAST[1:])
    named = " ".join(f"{view} {weight:.3f}" for view, weight in zip(VIEWS, weights))
    message = f"{len(targets)} validation users have their item among the candidates; {named}"
    verifier = None if slow.verifier is None else copy.deepcopy(slow.verifier).cpu()

    def learn() -> tuple[str, dict[str, Tensor], np.ndarray]:
        scores = weigh_held_out(features[..., : len(VIEWS)], targets, items > 0, used, weights, seed)
        if verifier is None:
            return "", {}, ranks_of(scores)
        errors, trusted = verify(verifier, *map(torch.from_numpy, (features, targets, items > 0, scores)), seed)
        trust = "trusted" if verifier.trusted else "not trusted"
        told = f"; verifier {trust}: {errors:+.1f} standard errors on held-out users"
        return told, verifier.state_dict(), ranks_of(trusted.numpy())

    def ranks_of(scores: np.ndarray) -> np.ndarray:
        ranked, ranks = items > 0, np.full(len(rows), np.inf)
        if unseen_only:
            histories = samples.histories[rows[torch.from_numpy(found)]].cpu().numpy()
            ranked &= ~(items[:, :, None] == histories[:, None]).any(-1)
        hits = ranked & (np.arange(items.shape[1]) == targets[:, None])
        ranks[found] = ranks_among(np.where(ranked, scores, -np.inf), hits)
        return ranks

    told, learnt, ranks = broadcast(learn)
    if slow.verifier is not None:
        slow.verifier.load_state_dict(learnt)
    return Learnt(message + told, rows, ranks)


def collect_views(
    model: STREAMRecModel,
    samples: Samples,
    rows: Tensor,
    trie: Trie,
    beams: int,
    candidates: int,
    show_progress: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the views say of some users' candidates.

    Args:
        model: with its ``deliberation``.
        samples: on the model's device.
        rows: numbers of the samples [U], on the CPU.
        trie, beams, candidates: see :func:`candidate_views`.
        show_progress: progress bar.

    Returns:
        items [U, C], 0 where there is no candidate; views [U, C, 5], followed by the verifier's other features where
        there is a verifier; targets [U]. Short histories come first.
    """
    found, vectors, verifier = [], model.deliberation.matcher.vectors().detach(), model.deliberation.verifier
    for batch in tqdm(samples.ordered(_USERS, rows), desc="weigh", ncols=100, disable=not show_progress, leave=False):
        items, views = candidate_views(model, batch.histories, trie, beams, candidates, vectors)
        if verifier is not None:
            views = verifier.features(batch.histories, items, views)
        found.append([tensor.cpu().numpy() for tensor in (items, views, batch.targets)])
    return tuple(np.concatenate(parts) for parts in zip(*found))
