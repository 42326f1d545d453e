"""A causal transformer over the items of a sequence, and SASRec on it.

The state at each item sees that item and those before it alone, so one pass over a sequence trains the prediction of
all its items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, Dropout, FeedForward, RelativeBias, RMSNorm, SelfAttention
from recbole_stream.model.linear import product

__all__ = ["CausalEncoder", "SASRecModel", "last_states"]


class CausalEncoder(nn.Module):
    """Self-attention layers in which a position sees itself and what is before it.

    Args:
        config: sizes; ``encoder_layers`` is the number of layers.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.bias = RelativeBias(config, bidirectional=False)
        self.attention = nn.ModuleList(SelfAttention(config) for _ in range(config.encoder_layers))
        self.feed_forward = nn.ModuleList(FeedForward(config) for _ in range(config.encoder_layers))
        self.norm = RMSNorm(config.hidden_size)
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Vectors [B, L, H], padding on the right -> states [B, L, H]; those at padding mean nothing."""
        bias = self.bias(0, x.shape[1], x.shape[1])
        x = self.dropout(x)
        for attend, feed in zip(self.attention, self.feed_forward):
            x = feed(attend(x, bias)[0])
        return self.dropout(self.norm(x))


def last_states(states: Tensor, histories: Tensor) -> Tensor:
    """The state at each history's latest item: [B, L, H] and item ids [B, L], 0 as padding on the right -> [B, H]."""
    last = (histories > 0).sum(1).sub(1).clamp(min=0)
    return states[torch.arange(len(last), device=last.device), last]


class SASRecModel(nn.Module):
    """Self-attentive sequential recommendation (Kang and McAuley, 2018), trained with cross-entropy over all items.

    A state of the sequence against a vector of every item. The layers are those of this project's backbone: relative
    positions and norms before each block.

    Args:
        config: sizes.
        n_items: rows of the item table, the padding item 0 included.
    """

    def __init__(self, config: BackboneConfig, n_items: int) -> None:
        super().__init__()
        self.own = nn.Embedding(n_items, config.hidden_size)
        nn.init.normal_(self.own.weight, std=0.02)  # small, so that all logits are nearly equal when training starts
        self.norm = RMSNorm(config.hidden_size)
        self.encoder = CausalEncoder(config)

    def vectors(self) -> Tensor:
        """One vector an item, [n_items, H]."""
        return self.own.weight

    def all_states(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> a state after each item, [B, L, H]."""
        return self.encoder(self.norm(self.own(histories)))

    def states(self, histories: Tensor, vectors: Tensor | None = None) -> Tensor:
        """The state after the latest item, [B, H]; ``vectors`` as :meth:`vectors` gives them, which are its own."""
        return last_states(self.all_states(histories), histories)

    def logits(self, states: Tensor, vectors: Tensor | None = None) -> Tensor:
        """States [N, H] -> logits over the catalogue [N, n_items], -inf for the padding item."""
        logits = product(states, self.vectors() if vectors is None else vectors).float()
        closed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        closed[0] = True
        return logits.masked_fill(closed, -torch.inf)

    def forward(self, histories: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Item ids [B, L] -> logits of the next item [B, n_items]; ``vectors`` as :meth:`vectors` gives them."""
        return self.logits(self.states(histories), vectors)

    def loss(self, histories: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of the next items of all positions; labels [B, L], 0 where there is none."""
        present = labels > 0
        return F.cross_entropy(self.logits(self.all_states(histories)[present]), labels[present])
