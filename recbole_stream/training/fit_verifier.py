"""Training of the verifier, and of any scorer: cross-entropy over the candidates of each user.

The loss is a differentiable form of what Eq. 27 rewards: the target's place among the candidates.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.model.verifier import Scorer, Verifier

__all__ = ["fit_scorer", "folds", "list_loss", "verify"]

_EPOCHS, _STEPS = 12, 600  # training takes at least so many epochs and at least so many steps
_USERS, _RATE, _DECAY = 64, 3e-3, 1e-3
_FOLDS = 4


def list_loss(scores: Tensor, targets: Tensor, present: Tensor) -> Tensor:
    """-log of the target's share among a user's candidates: scores [U, C], places [U], candidates [U, C] -> [U]."""
    return F.cross_entropy(scores.masked_fill(~present, -torch.inf), targets, reduction="none")


def fit_scorer(scorer: Scorer, features: Tensor, targets: Tensor, present: Tensor, seed: int) -> None:
    """Train a scorer in place, from its first weights.

    Args:
        features: of the candidates [U, C, F].
        targets: place of each user's item among them [U].
        present: which places hold a candidate [U, C].
        seed: of its first weights, the order of users and the dropout.
    """
    seen = features[present]
    scorer.mean.copy_(seen.mean(0))
    scorer.scale.copy_(seen.std(0).clamp(min=1e-3))  # a constant feature becomes 0
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.default_generator.manual_seed(seed)  # the CPU's alone: torch.manual_seed seeds GPUs, too
        for layer in (scorer.linear, scorer.network[0], scorer.network[-1]):
            layer.reset_parameters()
        scorer.network[-1].weight.data.mul_(0.1)  # nearly linear at first
        parameters = list(scorer.requires_grad_(True).train().parameters())
        optimizer = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
        steps = -(-len(targets) // _USERS)
        epochs = max(_EPOCHS, -(-_STEPS // steps))
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(targets)).split(_USERS):
                loss = list_loss(scorer(features[rows]), targets[rows], present[rows]).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
    scorer.requires_grad_(False).eval()


def folds(users: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Four times: users to learn from, and the fourth of the users that is held out; nothing for fewer than four."""
    if users < _FOLDS:
        return
    for fold in torch.randperm(users, generator=torch.Generator().manual_seed(seed)).chunk(_FOLDS):
        yield torch.ones(users, dtype=torch.bool).index_fill(0, fold, False).nonzero()[:, 0], fold


@torch.no_grad()
def verify(
    verifier: Verifier, features: Tensor, targets: Tensor, present: Tensor, scores: Tensor, seed: int
) -> tuple[float, Tensor]:
    """Train the verifier, and trust it where it ranks held-out users better than the weighted sum of the views does.

    It is trusted where the mean -log P of held-out users' items falls by more than two standard errors of the
    difference.

    Args:
        features, targets, present, seed: see :func:`fit_scorer`.
        scores: of the candidates by the weighed views, [U, C]; as fitted on other users, for a fair comparison.

    Returns:
        by how many nats a user it is better on held-out users, in standard errors (0 for fewer users than folds); and
        the candidates' scores by whichever of both is trusted, as fitted on other users, [U, C].
    """
    held_out = scores.clone()
    for others, fold in folds(len(targets), seed):
        trial = copy.deepcopy(verifier)
        fit_scorer(trial, features[others], targets[others], present[others], seed)
        held_out[fold] = trial(features[fold]).to(held_out.dtype)
    gain = list_loss(scores, targets, present) - list_loss(held_out, targets, present)
    errors = float(gain.mean() / (gain.std() / len(gain) ** 0.5).clamp(min=1e-9)) if len(gain) >= _FOLDS else 0.0
    verifier.trusted.fill_(errors > 2)
    if errors > 2:
        fit_scorer(verifier, features, targets, present, seed)
    return errors, held_out if errors > 2 else scores
