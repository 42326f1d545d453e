"""Latte: TIGER with several latent start tokens, the control of an ensemble within one model.

Its paper lets the decoder begin with one of S learnt tokens, drawn at random for each training sample, and adds up the
likelihoods of all S when it recommends. Each start is a model of its own over shared weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, Memory
from recbole_stream.model.prefix import Prefix
from recbole_stream.model.tiger import TIGERModel
from recbole_stream.model.tokens import ItemTokens

__all__ = ["LatteModel"]


class LatteModel(TIGERModel):
    """TIGER whose start token is the common one plus one of S latent vectors.

    Args:
        config: sizes of the backbone.
        tokens: the vocabulary and the items' semantic IDs.
        latents: S.
    """

    def __init__(self, config: BackboneConfig, tokens: ItemTokens, latents: int) -> None:
        super().__init__(config, tokens)
        self.latents = nn.Embedding(latents, config.hidden_size)

    def begin_with(self, memory: Memory, latents: Tensor) -> Prefix:
        """The prefix that has read only the start token with latent vectors [B], one sequence a history."""
        start = self.decoder.start + self.latents(latents)
        hidden, cache = self.decoder.stack(start[:, None, None], memory)
        return Prefix(self.decoder, self.tokens, memory, cache, hidden)

    def paths(self, histories: Tensor) -> list[Prefix]:
        """The S prefixes of item ids [B, L], from each latent vector."""
        memory = self.memory(histories)
        return [
            self.begin_with(memory, torch.full((len(histories),), number, device=histories.device))
            for number in range(self.latents.num_embeddings)
        ]

    def latent_logits(self, histories: Tensor, targets: Tensor, latents: Tensor) -> Tensor:
        """Teacher forcing from given latent vectors [B]: logits [B, m, V] of the target's tokens, targets [B]."""
        labels = self.tokens.table[targets]
        start = (self.decoder.start + self.latents(latents))[:, None, None]
        inputs = torch.cat([start, self.tokens.embedding(labels[:, None, :-1])], 2)  # [B, 1, m, H]
        hidden, _ = self.decoder.stack(inputs, self.memory(histories))
        return self.tokens.logits(hidden[:, 0])
