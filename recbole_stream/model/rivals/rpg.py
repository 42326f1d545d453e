"""RPG: long semantic IDs without an order, all codes of the next item predicted at once (Hou et al., 2025).

An item is the mean of its codes' embeddings, a causal transformer reads the items, and from each state every code is
predicted by a softmax of its own, in parallel. P(item | history) is the product of its codes' probabilities, so all
items are scored exactly, without a search.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, RMSNorm
from recbole_stream.model.rivals.causal import CausalEncoder, last_states

__all__ = ["RPGModel", "digit_loss", "item_scores"]


def digit_loss(logits: Tensor, codes: Tensor) -> Tensor:
    """The multi-token prediction loss: mean cross-entropy of all codes.

    Args:
        logits: of each code's softmax [m, N, K].
        codes: of the N next items [N, m].
    """
    return F.cross_entropy(logits.flatten(0, 1), codes.T.flatten())


def item_scores(log_probs: Tensor, table: Tensor) -> Tensor:
    """log P(item | history): the sum of its codes' log-probabilities.

    Args:
        log_probs: [m, N, K].
        table: codes of all items, code k of digit d as d * K + k, [n_items, m].

    Returns:
        [N, n_items].
    """
    weight = log_probs.transpose(1, 2).flatten(0, 1)  # [m * K, N]
    return F.embedding_bag(table, weight, mode="sum").T


class RPGModel(nn.Module):
    """History -> m distributions over codes -> a score of every item.

    Args:
        config: sizes; ``encoder_layers`` is the number of layers.
        codes: semantic IDs [n_items, m] of items 1 .. n_items, codes from 0 in each digit.
        codebook_size: K, above all codes.
        temperature: divides the cosines of states and code embeddings.
    """

    def __init__(self, config: BackboneConfig, codes: Tensor, codebook_size: int, temperature: float) -> None:
        super().__init__()
        self.size, self.temperature, digits = codebook_size, temperature, codes.shape[1]
        offsets = torch.arange(digits) * codebook_size
        # row 0, the padding item, is never a target, and what stands at padding is not read by any item's state
        self.register_buffer("table", F.pad(codes + offsets, (0, 0, 1, 0)))  # [n_items + 1, m]
        self.register_buffer("offsets", offsets, persistent=False)
        self.embedding = nn.Embedding(digits * codebook_size, config.hidden_size)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.norm = RMSNorm(config.hidden_size)
        self.encoder = CausalEncoder(config)
        # a projection for each digit, x + SiLU(W x), whose W is 0 when training starts
        self.project = nn.Parameter(torch.zeros(digits, config.hidden_size, config.hidden_size))

    def items(self, items: Tensor) -> Tensor:
        """The mean of the items' code embeddings: ids [..] -> [.., H]."""
        rows = self.table[items].flatten(0, -2)
        return F.embedding_bag(rows, self.embedding.weight, mode="mean").unflatten(0, items.shape)

    def states(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> a state after each item, [B, L, H]."""
        return self.encoder(self.norm(self.items(histories)))

    def logits(self, states: Tensor) -> Tensor:
        """States [N, H] -> cosine with each code's embedding over the temperature, [m, N, K]."""
        projected = states + F.silu(states @ self.project.transpose(1, 2))  # [m, N, H]
        codes = self.embedding.weight.unflatten(0, (-1, self.size))  # [m, K, H]
        # the vectors are scaled, not the many more products
        return (F.normalize(projected, dim=-1) / self.temperature) @ F.normalize(codes, dim=-1).transpose(1, 2)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> log P(item | history) [B, n_items + 1], the padding's too."""
        log_probs = self.logits(last_states(self.states(histories), histories)).float().log_softmax(-1)
        return item_scores(log_probs, self.table)

    def loss(self, histories: Tensor, labels: Tensor) -> Tensor:
        """:func:`digit_loss` of the next items of all positions; labels [B, L], 0 where there is none."""
        present = labels > 0
        return digit_loss(
            self.logits(self.states(histories)[present]).float(), self.table[labels[present]] - self.offsets
        )
