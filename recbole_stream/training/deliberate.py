"""Training for deliberation: the matching tower, the weights of the views, the verifier."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import chi2
from torch import Tensor
from tqdm import tqdm

from recbole_stream.data.samples import Batch, Samples
from recbole_stream.decoding.deliberate import candidate_views
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.deliberation import LEAST, RANKINGS, VIEWS
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.training.loop import Objective
from recbole_stream.training.processes import from_first
from recbole_stream.training.verify import verify

__all__ = ["Match", "choose_weights", "collect_views", "fit_weights", "learn_to_deliberate"]

_USERS = 128  # whose candidates are scored at once


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


def learn_to_deliberate(
    model: STREAMRecModel,
    samples: Samples,
    rows: Tensor,
    trie: Trie,
    beams: int,
    candidates: int,
    seed: int,
    show_progress: bool = False,
) -> str:
    """Choose the weights of the views, then train the verifier on the candidates that they find.

    Args:
        model: with its ``deliberation``, by which it ranks from here on.
        samples: of users on whom nothing was trained, on the model's device.
        rows: numbers of the samples to learn from, on the CPU.
        trie, beams, candidates: see :func:`candidate_views`.
        seed: of the verifier.
        show_progress: progress bar.

    Returns:
        what came of it, for the log. Without any user whose item is a candidate all stays as it is.
    """
    slow = model.deliberation

    def collect() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        items, features, targets = collect_views(model, samples, rows, trie, beams, candidates, show_progress)
        hits = items == targets[:, None]
        found = hits.any(1)
        return features[found], hits[found].argmax(1), items[found] > 0

    slow.ranking.fill_(RANKINGS.index("deliberation"))
    features, targets, present = collect()
    if not len(targets):
        return "no validation user's item is a candidate; the first weights stay"
    # one outcome for all processes, whose sums may differ in the last digit
    weights = from_first(lambda: choose_weights(features[..., : len(VIEWS)], targets, present, slow.used, LEAST))
    slow.weights.copy_(torch.from_numpy(weights))
    named = " ".join(f"{view} {weight:.3f}" for view, weight in zip(VIEWS, weights))
    message = f"{len(targets)} validation users have their item among the candidates; {named}"
    if slow.verifier is None:
        return message
    features, targets, present = collect()
    scores = features[..., : len(VIEWS)] @ weights
    verifier = copy.deepcopy(slow.verifier).cpu()

    def learn() -> tuple[float, dict[str, Tensor]]:
        errors = verify(verifier, *map(torch.from_numpy, (features, targets, present, scores)), seed)
        return errors, verifier.state_dict()

    errors, learnt = from_first(learn)
    slow.verifier.load_state_dict(learnt)
    trust = "trusted" if slow.verifier.trusted else "not trusted"
    return f"{message}; verifier {trust}: {errors:+.1f} standard errors on held-out users"


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
    order = rows[samples.lengths[rows].argsort(stable=True)]
    for part in tqdm(order.split(_USERS), desc="weigh", ncols=100, disable=not show_progress, leave=False):
        batch = samples.batch(part)
        items, views = candidate_views(model, batch.histories, trie, beams, candidates, vectors)
        if verifier is not None:
            views = verifier.features(batch.histories, items, views)
        found.append([tensor.cpu().numpy() for tensor in (items, views, batch.targets)])
    return tuple(np.concatenate(parts) for parts in zip(*found))


def choose_weights(
    views: np.ndarray,
    targets: np.ndarray,
    present: np.ndarray,
    used: tuple[bool, ...],
    least: tuple[float | None, ...],
    level: float = 0.01,
) -> np.ndarray:
    """:func:`fit_weights`, with 0 for the generative view where it does not earn its cost.

    It takes nearly all the time of ranking. It stays where a likelihood-ratio test tells the views with it from those
    without it.

    Args:
        views, targets, present, used, least: see :func:`fit_weights`; the generative view is the first.
        level: of the test.

    Returns:
        weights [F] in float64.
    """
    weights = fit_weights(views, targets, present, used, least)
    if not used[0] or sum(used) == 1:
        return weights
    without = fit_weights(views, targets, present, (False, *used[1:]), least)
    lost = _loss(without, views, targets, present)[0] - _loss(weights, views, targets, present)[0]
    return weights if 2 * len(targets) * lost > chi2.isf(level, 1) else without


def fit_weights(
    views: np.ndarray,
    targets: np.ndarray,
    present: np.ndarray,
    used: tuple[bool, ...],
    least: tuple[float | None, ...],
    ridge: float = 1e-3,
) -> np.ndarray:
    """Weights under which the target is likeliest among a user's candidates (a conditional logit; convex).

    Args:
        views: of every candidate, [U, C, F].
        targets: place of the target among the candidates [U].
        present: which places hold a candidate [U, C].
        used: which of the F weights may differ from 0.
        least: what each may not be below, None where it may be anything.
        ridge: of the squared weights, in nats a user; it decides where views say the same.

    Returns:
        weights [F] in float64.
    """
    columns = np.flatnonzero(used)
    some = views[..., columns].astype(np.float64)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = _loss(weights, some, targets, present)
        return value + ridge * weights @ weights, gradient + 2 * ridge * weights

    bounds = [(least[column], None) for column in columns]
    fitted = minimize(loss, np.zeros(len(columns)), jac=True, method="L-BFGS-B", bounds=bounds)
    weights = np.zeros(views.shape[-1])
    weights[columns] = fitted.x
    return weights


def _loss(
    weights: np.ndarray, views: np.ndarray, targets: np.ndarray, present: np.ndarray
) -> tuple[float, np.ndarray]:
    """Mean -log P of the target over users, in nats, and its gradient [F]."""
    scores = np.where(present, views @ weights, -np.inf)
    total = logsumexp(scores, axis=1, keepdims=True)
    share, rows = np.exp(scores - total), np.arange(len(views))
    value = (total[:, 0] - scores[rows, targets]).mean()
    return value, (np.einsum("uc,ucf->uf", share, views) - views[rows, targets]).mean(0)
