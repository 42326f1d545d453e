"""The weights of the views: a conditional logit on the candidates of validation users."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import chi2

from recbole_stream.model.deliberation import LEAST
from recbole_stream.training.fit_verifier import folds

__all__ = ["choose_weights", "fit_weights", "ranks_among", "weigh_held_out"]


def choose_weights(
    views: np.ndarray,
    targets: np.ndarray,
    present: np.ndarray,
    used: tuple[bool, ...],
    least: tuple[float | None, ...],
    level: float = 0.01,
) -> np.ndarray:
    """As :func:`fit_weights`, but with weight 0 for the likelihood where the other views do as well without it.

    The likelihood takes nearly all the time of ranking. It is kept where a likelihood-ratio test says that the views
    with it fit better than those without it.

    Args:
        views, targets, present, used, least: see :func:`fit_weights`; the likelihood is the first.
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
        ridge: penalty on the squared weights, in nats a user; it makes the weights unique where views are equal.

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


def weigh_held_out(
    views: np.ndarray, targets: np.ndarray, present: np.ndarray, used: tuple[bool, ...], weights: np.ndarray, seed: int
) -> np.ndarray:
    """The weighed sum [U, C], each user's with weights that were fitted on others.

    Args:
        views, targets, present, used: see :func:`fit_weights`.
        weights: fitted on all users, for where they are too few to hold some out.
        seed: of who is held out when, see :func:`folds`.
    """
    scores = views @ weights
    for others, fold in folds(len(targets), seed):
        others, fold = others.numpy(), fold.numpy()
        scores[fold] = views[fold] @ fit_weights(views[others], targets[others], present[others], used, LEAST)
    return scores


def ranks_among(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Rank of each user's target among the candidates.

    Args:
        scores: [U, C], -inf where there is no candidate.
        hits: which candidate is the target [U, C].

    Returns:
        ranks [U] from 1; ties count against the target; infinite where it is none of the candidates.
    """
    own = np.where(hits, scores, -np.inf).max(1, keepdims=True)
    return np.where(hits.any(1), (scores >= own).sum(1), np.inf)


def _loss(weights: np.ndarray, views: np.ndarray, targets: np.ndarray, present: np.ndarray) -> tuple[float, np.ndarray]:
    """Mean -log P of the target over users, in nats, and its gradient [F]."""
    scores = np.where(present, views @ weights, -np.inf)
    total = logsumexp(scores, axis=1, keepdims=True)
    share, rows = np.exp(scores - total), np.arange(len(views))
    value = (total[:, 0] - scores[rows, targets]).mean()
    return value, (np.einsum("uc,ucf->uf", share, views) - views[rows, targets]).mean(0)
