"""Sampled outputs: reasoning and item tokens drawn from the policy."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.model.prefix import Prefix

__all__ = ["sample_rollouts"]


def _draw(prefix: Prefix) -> Tensor:
    """One token for each sequence, [B, G]: the largest of log p + Gumbel noise is a sample of p."""
    log_probs = prefix.log_probs()
    return (log_probs - torch.empty_like(log_probs).exponential_().log()).argmax(-1)


@torch.no_grad()
def sample_rollouts(prefix: Prefix, group: int, steps: int, levels: int) -> tuple[Tensor, Prefix]:
    """G outputs for each history, drawn freely from the whole vocabulary.

    The encoder and the start token are read once a history, not once a rollout.

    Args:
        prefix: before the first reasoning token, one sequence a history.
        group: G.
        steps: l, reasoning tokens.
        levels: m, item tokens.

    Returns:
        tokens [B, G, l + m], and the prefix [B, G] that has read the reasoning.
    """
    batch = prefix.hidden.shape[0]
    everyone = torch.zeros(batch, group, dtype=torch.long, device=prefix.hidden.device)
    prefix = prefix.shared().select(everyone)
    tokens, thought = [], prefix
    for position in range(steps + levels):
        tokens.append(_draw(prefix))
        if position + 1 < steps + levels:
            prefix = prefix.read(tokens[-1][..., None])
        if position + 1 == steps:
            thought = prefix
    return torch.stack(tokens, -1), thought
