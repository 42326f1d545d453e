"""ReaRec: the losses of latent reasoning steps over a sequential recommender.

Tang et al., "Think before Recommend: Unleashing the Latent Reasoning Power for Sequential Recommendation" (2025,
arXiv:2503.22675): Section 3.2 (ensemble reasoning learning, ERL) and Section 3.3 (progressive reasoning learning, PRL).
Steps are numbered k = 0 .. K; step 0 is the recommender's own state, the K others are latent.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "WAYS",
    "annealed_temperatures",
    "loss_by_rows",
    "ranking_state",
    "reasoning_contrast",
    "step_cross_entropy",
    "step_diversity",
]

WAYS = ("erl", "prl")


def ranking_state(states: Tensor, way: str) -> Tensor:
    """What ranks the items, [B, K + 1, H] -> [B, H]: the mean of all steps' states (erl), or the last one (prl)."""
    return states.mean(1) if way == "erl" else states[:, -1]


def annealed_temperatures(steps: int, temperature: float, base: float, device: torch.device | None = None) -> Tensor:
    """PRL: ``tau_k = tau base^(K - k)`` for k = 0 .. K, [K + 1]: the scores sharpen from step to step.

    Args:
        steps: K.
        temperature: tau, that of the last step.
        base: at least 1.
    """
    return temperature * base ** torch.arange(steps, -1, -1, dtype=torch.float32, device=device)


def step_cross_entropy(log_p: Tensor, targets: Tensor) -> Tensor:
    """``-sum_k log p_k(target)``, mean over the batch.

    Args:
        log_p: [B, K + 1, N], log-probabilities of all items at every step.
        targets: [B], item numbers below N.
    """
    own = targets[:, None, None].expand(-1, log_p.shape[1], 1)
    return -log_p.gather(-1, own).sum((1, 2)).mean()


def step_diversity(log_p: Tensor) -> Tensor:
    """ERL's regulariser ``-sum_{i < j} KL(p_i || p_j)``, mean over the batch: the steps' predictions are to differ.

    Args:
        log_p: [B, K + 1, N].
    """
    total = log_p.new_zeros(())
    for i in range(log_p.shape[1] - 1):
        later = log_p.shape[1] - 1 - i
        # sum over j > i of sum_n p_i (log p_i - log p_j)
        gap = later * log_p[:, i] - log_p[:, i + 1 :].sum(1)
        total = total + torch.einsum("bn,bn->", log_p[:, i].exp(), gap) / len(log_p)
    return -total


def reasoning_contrast(clean: Tensor, noisy: Tensor, temperature: float) -> Tensor:
    """PRL's InfoNCE: at each step a noisy state is to recognise its own clean state among those of the batch.

    Summed over the steps, mean over the batch; similarities are dot products.

    Args:
        clean, noisy: [B, K, H], states of the K latent steps without and with noise on their inputs.
        temperature: tau.
    """
    logits = torch.einsum("bkh,ckh->kbc", noisy, clean) / temperature  # [K, B, B]
    own = torch.arange(len(clean), device=clean.device).repeat(clean.shape[1])
    return clean.shape[1] * F.cross_entropy(logits.flatten(0, 1), own)


# Scores that are held at once: they stay in a CPU's cache, where a softmax takes a third of the time.
_CELLS = 1 << 20


def loss_by_rows(loss: Callable[[Tensor, Tensor], Tensor], states: Tensor, vectors: Tensor, targets: Tensor) -> Tensor:
    """``loss(log_p, targets)`` of the log-probabilities of all items, without all of them in memory at once.

    Gradients are computed with the value, a few rows at a time.

    Args:
        loss: a mean over rows, of log_p [b, K + 1, N] and targets [b].
        states: divided by their temperature, [B, K + 1, H].
        vectors: of the items [N, H].
        targets: [B].
    """
    return _LossByRows.apply(loss, states, vectors, targets)


class _LossByRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, loss: Callable[[Tensor, Tensor], Tensor], states: Tensor, vectors: Tensor, targets: Tensor
    ) -> Tensor:
        rows = max(1, _CELLS // (states.shape[1] * len(vectors)))
        whole, items = vectors.detach().requires_grad_(), torch.zeros_like(vectors)
        total, of_states = states.new_zeros((), dtype=torch.float32), []
        for part, own in zip(states.detach().split(rows), targets.split(rows), strict=True):
            with torch.enable_grad():
                part.requires_grad_()
                value = loss((part @ whole.T).float().log_softmax(-1), own) * (len(own) / len(targets))
                of_part, of_vectors = torch.autograd.grad(value, (part, whole))
            total += value.detach()
            of_states.append(of_part)
            items += of_vectors
        ctx.save_for_backward(torch.cat(of_states), items)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor, Tensor, None]:
        of_states, of_vectors = ctx.saved_tensors
        return None, of_states * gradient, of_vectors * gradient, None
