"""Training for deliberation: the matching tower, then on validation users the weights of the views and the verifier."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.data.seen import Seen
from recbole_stream.decoding.rank_by_views import candidate_views
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import LEAST, RANKINGS, VIEWS
from recbole_stream.model.matching import Matcher
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.verifier import Verifier
from recbole_stream.training.fit_verifier import verify
from recbole_stream.training.loop import Objective
from recbole_stream.training.losses import catalogue_cross_entropy
from recbole_stream.training.processes import broadcast
from recbole_stream.training.view_weights import choose_weights, fit_weights, ranks_among, weigh_held_out

__all__ = ["Learnt", "Match", "collect_views", "learn_to_deliberate", "matching_loss"]

_USERS = 128  # whose candidates are scored at once
_KEPT = 1e-3  # least weight of a likelihood that was chosen: at 0 the verifier would no longer see it


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
        yield matching_loss(self.model.deliberation.matcher, batch), {}


def matching_loss(matcher: Matcher, batch: Batch) -> Tensor:
    """Cross-entropy of the next item over the whole catalogue."""
    vectors = matcher.vectors()
    return catalogue_cross_entropy(matcher.states(batch.histories, vectors), vectors, batch.targets)


@dataclass
class Learnt:
    """Outcome of :func:`learn_to_deliberate`.

    Attributes:
        message: for the log.
        rows: numbers of the samples that were used [U], on the CPU.
        ranks: places of their targets, from 1, by weights and a verifier that were fitted on other users [U]; infinite
            where the target was no candidate. They estimate what users outside the samples will see.
    """

    message: str
    rows: Tensor
    ranks: np.ndarray


@dataclass
class _Found:
    """The candidates of those users whose target is among them; U of the users asked for.

    Attributes:
        items: candidates [U, C], 0 where there is none.
        features: what the views and the verifier's own features say of them [U, C, F].
        targets: the target's place among a user's candidates [U].
        users: which of all users these are, bool [all users].
    """

    items: np.ndarray
    features: np.ndarray
    targets: np.ndarray
    users: np.ndarray

    @property
    def views(self) -> np.ndarray:
        """The features without those that only the verifier sees, [U, C, 5]."""
        return self.features[..., : len(VIEWS)]

    @property
    def present(self) -> np.ndarray:
        """Which places hold a candidate [U, C]."""
        return self.items > 0


def learn_to_deliberate(
    model: STREAMRecModel,
    samples: Samples,
    rows: Tensor,
    trie: Trie,
    beams: int,
    candidates: int,
    seed: int,
    show_progress: bool = False,
    keep_likelihood: bool = False,
) -> Learnt:
    """Choose the weights of the views, fit them again on the candidates that they find, and train the verifier on these.

    Nothing changes where no user's target is among the candidates.

    Args:
        model: with its ``deliberation``, by which it ranks from here on.
        samples: of users on whom nothing was trained, on the model's device; the ranks leave out what they have seen.
        rows: numbers of the samples to learn from [U], on the CPU.
        trie, beams, candidates: see :func:`candidate_views`.
        seed: of the verifier, and of who is held out when.
        show_progress: progress bar.
        keep_likelihood: keep the view, if it is on, also where the others do as well without it: to measure its worth.
    """
    slow = model.deliberation
    rows = rows[samples.lengths[rows].argsort(stable=True)]  # the order in which their candidates come
    slow.ranking.fill_(RANKINGS.index("deliberation"))
    used, least = slow.used, (_KEPT if keep_likelihood and slow.used[0] else LEAST[0], *LEAST[1:])
    # twice: with the fitted weights the views find other candidates than with the first weights, for example
    # items that the user has already
    for choose in (fit_weights if keep_likelihood else choose_weights, fit_weights):
        found = _collect(model, samples, rows, trie, beams, candidates, show_progress)
        if not len(found.targets):
            nowhere = np.full(len(rows), np.inf)
            return Learnt("no validation user's item is a candidate; the weights stay", rows, nowhere)
        weights = _fit(choose, found, used, least)
        slow.weights.copy_(torch.from_numpy(weights))
        used = (bool(weights[0]), *slow.used[1:])
        least = (_KEPT if used[0] else 0.0, *LEAST[1:])
    seen = None if samples.seen is None else samples.seen.to("cpu").take(rows)
    told, learnt, ranks = broadcast(lambda: _forecast(slow.verifier, found, used, weights, seed, seen))
    if slow.verifier is not None:
        slow.verifier.load_state_dict(learnt)
    named = " ".join(f"{view} {weight:.3f}" for view, weight in zip(VIEWS, weights))
    message = f"{len(found.targets)} validation users have their item among the candidates; {named}{told}"
    return Learnt(message, rows, ranks)


def _collect(
    model: STREAMRecModel,
    samples: Samples,
    rows: Tensor,
    trie: Trie,
    beams: int,
    candidates: int,
    show_progress: bool,
) -> _Found:
    """The candidates that the model finds with its present weights; see :func:`collect_views`."""
    items, features, targets = collect_views(model, samples, rows, trie, beams, candidates, show_progress)
    hits = items == targets[:, None]
    users = hits.any(1)
    return _Found(items[users], features[users], hits[users].argmax(1), users)


def _fit(
    choose: Callable[..., np.ndarray], found: _Found, used: tuple[bool, ...], least: tuple[float | None, ...]
) -> np.ndarray:
    """Weights of the views [5], the first process's in all: the sums of others may differ in the last digit."""
    return broadcast(lambda: choose(found.views, found.targets, found.present, used, least))


def _forecast(
    verifier: Verifier | None,
    found: _Found,
    used: tuple[bool, ...],
    weights: np.ndarray,
    seed: int,
    seen: Seen | None,
) -> tuple[str, dict[str, Tensor], np.ndarray]:
    """Train the verifier, and rank each user's target by what was fitted on other users.

    Args:
        verifier: left as it is; a copy is trained.
        found: the candidates.
        used, weights: of the views.
        seed: of the verifier, and of who is held out when.
        seen: of all users, not ranked; None ranks them too.

    Returns:
        what to log of the verifier, its weights, and the ranks [all users], infinite where the target is not ranked.
    """
    scores = weigh_held_out(found.views, found.targets, found.present, used, weights, seed)
    told, learnt = "", {}
    if verifier is not None:
        verifier = copy.deepcopy(verifier).cpu()
        parts = map(torch.from_numpy, (found.features, found.targets, found.present, scores))
        errors, trusted = verify(verifier, *parts, seed)
        trust = "trusted" if verifier.trusted else "not trusted"
        told = f"; verifier {trust}: {errors:+.1f} standard errors on held-out users"
        learnt, scores = verifier.state_dict(), trusted.numpy()
    ranked, ranks = found.present, np.full(len(found.users), np.inf)
    if seen is not None:
        own = seen.take(torch.from_numpy(found.users).nonzero()[:, 0])
        ranked &= ~own.contains(torch.from_numpy(found.items)).numpy()
    hits = ranked & (np.arange(found.items.shape[1]) == found.targets[:, None])
    ranks[found.users] = ranks_among(np.where(ranked, scores, -np.inf), hits)
    return told, learnt, ranks


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
    slow = model.deliberation
    found, vectors = [], slow.matcher.vectors().detach()
    for batch in tqdm(samples.ordered(_USERS, rows), desc="weigh", ncols=100, disable=not show_progress, leave=False):
        items, views, seen = candidate_views(model, batch.histories, trie, beams, candidates, vectors)
        if slow.verifier is not None:
            views = slow.features(seen, items, views)
        found.append([tensor.cpu().numpy() for tensor in (items, views, batch.targets)])
    return tuple(np.concatenate(parts) for parts in zip(*found))
