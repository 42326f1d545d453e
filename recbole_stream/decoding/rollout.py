"""Sampled outputs: reasoning and item tokens drawn from the policy."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.model.prefix import Prefix

__all__ = ["sample_rollouts"]


def _draw(prefix: Prefix) -> Tensor:
    """One token for each sequence, [B, G]: the first whose cumulated probability exceeds a uniform number.

    One draw a sequence: noise for each of its V tokens would cost ten times the softmax on the CPU.
    """
    cumulated = prefix.log_probs().exp_().cumsum(-1)  # [B, G, V]
    # the sum differs from 1 by rounding; a draw of its whole length would point behind the last token
    drawn = torch.rand_like(cumulated[..., :1]) * cumulated[..., -1:]
    return torch.searchsorted(cumulated, drawn, right=True).clamp_(max=cumulated.shape[-1] - 1)[..., 0]


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
