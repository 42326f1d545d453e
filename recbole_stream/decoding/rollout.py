"""Sampled outputs: reasoning and item tokens drawn from the policy."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_stream.model.prefix import Prefix

__all__ = ["sample_rollouts"]


def _draw(prefix: Prefix, uniform: Tensor) -> Tensor:
    """One token for each sequence, [B, G]: the first whose cumulated probability exceeds its uniform number [B, G].

    One draw a sequence: noise for each of its V tokens would cost ten times the softmax on the CPU.
    """
    cumulated = prefix.log_probs().exp_().cumsum(-1)  # [B, G, V]
    # the sum differs from 1 by rounding; a draw of its whole length would point behind the last token
    drawn = uniform[..., None].to(cumulated.dtype) * cumulated[..., -1:]
    return torch.searchsorted(cumulated, drawn, right=True).clamp_(max=cumulated.shape[-1] - 1)[..., 0]


@torch.no_grad()
def sample_rollouts(
    prefix: Prefix, group: int, steps: int, levels: int, uniform: Tensor | None = None
) -> tuple[Tensor, Prefix]:
    """G outputs for each history, drawn freely from the whole vocabulary.

    The encoder and the start token are read once a history, not once a rollout.

    Args:
        prefix: before the first reasoning token, one sequence a history.
        group: G.
        steps: l, reasoning tokens.
        levels: m, item tokens.
        uniform: numbers from [0, 1) that decide the tokens, [B, G, l + m]; drawn here where there are none.

    Returns:
        tokens [B, G, l + m], and the prefix [B, G] that has read the reasoning.
    """
    batch, length, device = prefix.hidden.shape[0], steps + levels, prefix.hidden.device
    if uniform is None:
        uniform = torch.rand(batch, group, length, device=device)
    everyone = torch.zeros(batch, group, dtype=torch.long, device=device)
    prefix = prefix.shared().select(everyone)
    tokens, thought = [], prefix
    for position in range(length):
        tokens.append(_draw(prefix, uniform[..., position]))
        if position + 1 < length:
            prefix = prefix.read(tokens[-1][..., None])
        if position + 1 == steps:
            thought = prefix
    return torch.stack(tokens, -1), thought
