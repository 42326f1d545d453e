"""Residual reasoning (section 2.3 of the paper): states, residuals and the nearest token of Eq. 12."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ReasoningHead", "nearest_token"]


def nearest_token(residuals: Tensor, embeddings: Tensor) -> Tensor:
    """Eq. 12: ``argmin_k ‖c_k − r‖`` over the whole vocabulary.

    Args:
        residuals: r [.., H].
        embeddings: token embeddings c [V, H].

    Returns:
        token numbers [..].
    """
    # ‖c − r‖² = ‖c‖² − 2 c·r + ‖r‖², and the last term is the same for every token;
    # autocast would turn the product into bfloat16, whose rounding exceeds the gaps between distances
    with torch.autocast(residuals.device.type, enabled=False):
        return (embeddings.square().sum(-1) - 2 * residuals.float() @ embeddings.T).argmin(-1)


class _TwoLayers(nn.Module):
    """``MLP(x)``, or ``x + MLP(x)`` with a zero last layer.

    Freshly initialised plain MLPs map all residuals to a handful of tokens, so the
    identity is the start from which collection does not collapse.
    """

    def __init__(self, size: int, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.inner = nn.Linear(size, size)
        self.outer = nn.Linear(size, size)
        if residual:
            nn.init.zeros_(self.outer.weight)
            nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor) -> Tensor:
        change = self.outer(F.relu(self.inner(x)))
        return x + change if self.residual else change


class ReasoningHead(nn.Module):
    """``MLP_r`` and ``MLP_s``.

    Args:
        size: hidden size H.
        mlp: ``"residual"`` (x + MLP(x), zero last layer) or ``"plain"``, see :class:`_TwoLayers`.
        scale: ``"raw"`` takes t and s as they are; ``"unit"`` brings both to the same length first, which
            makes the trace a permutation of the answer's own codes.
    """

    def __init__(self, size: int, mlp: str, scale: str) -> None:
        super().__init__()
        self.mlp_r = _TwoLayers(size, mlp == "residual")
        self.mlp_s = _TwoLayers(size, mlp == "residual")
        self.unit = scale == "unit"

    def states(self, hidden: Tensor) -> Tensor:
        """Decoder states d_0 .. d_j [B, j + 1, H] -> s_0 = d_0, s_i = MLP_s(d_0 + .. + d_i), same shape."""
        summed = self.mlp_s(hidden.cumsum(1)[:, 1:])
        return torch.cat([hidden[:, :1], summed], 1)

    def residuals(self, target: Tensor, states: Tensor) -> Tensor:
        """r_i = MLP_r(t − s_{i−1}): t [B, H] and s_0 .. s_{l−1} [B, l, H] -> [B, l, H]."""
        target = target[:, None]
        if self.unit:
            length = target.norm(dim=-1, keepdim=True)
            states = F.normalize(states, dim=-1) * length
        return self.mlp_r(target - states)
