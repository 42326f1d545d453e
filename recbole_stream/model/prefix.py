"""A decoder that speaks tokens, and the place it has reached."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, Cache, Decoder, Memory
from recbole_stream.model.tokens import ItemTokens

__all__ = ["Prefix", "TokenDecoder"]


class TokenDecoder(nn.Module):
    """A decoder with its start token. The vocabulary is passed in, since decoders share it."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.stack = Decoder(config)
        self.start = nn.Parameter(torch.randn(config.hidden_size))

    def forward(self, inputs: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: the start token and then ``inputs`` [B, G, T, H] -> hidden states [B, G, T + 1, H]."""
        start = self.start.to(inputs.dtype).expand(*inputs.shape[:2], 1, -1)
        return self.stack(torch.cat([start, inputs], 2), memory)[0]

    def begin(self, tokens: ItemTokens, memory: Memory) -> Prefix:
        """The prefix that has read only the start token, one sequence a history."""
        start = self.start.expand(memory.bias.shape[0], 1, 1, -1)
        hidden, cache = self.stack(start, memory)
        return Prefix(self, tokens, memory, cache, hidden)


@dataclass
class Prefix:
    """G sequences for each of B histories, decoded up to some position.

    ``hidden`` [B, G, T, H] are the last hidden states of the positions read last;
    ``hidden[:, :, -1]`` predicts the next token.
    """

    decoder: TokenDecoder
    tokens: ItemTokens
    memory: Memory
    cache: Cache
    hidden: Tensor

    def log_probs(self) -> Tensor:
        """Log-probabilities of the next token, [B, G, V] in float32."""
        return torch.log_softmax(self.tokens.logits(self.hidden[:, :, -1]).float(), -1)

    def read(self, tokens: Tensor) -> Prefix:
        """Read T more tokens: [B, G', T] where G' = G, or any number where the past is shared."""
        hidden, cache = self.decoder.stack(self.tokens.embedding(tokens), self.memory, self.cache)
        return replace(self, cache=cache, hidden=hidden)

    def shared(self) -> Prefix:
        """The same single sequence a history, now a common past for many sequences (G = 1 required)."""
        return replace(self, cache=self.cache.as_shared())

    def select(self, parents: Tensor) -> Prefix:
        """Go on with the sequences ``parents`` [B, W] only (repeats allowed)."""
        rows = torch.arange(parents.shape[0], device=parents.device)[:, None]
        return replace(self, cache=self.cache.select(parents), hidden=self.hidden[rows, parents])

    def take(self, rows: Tensor) -> Prefix:
        """Go on with the histories ``rows`` [R] only."""
        return replace(self, memory=self.memory.take(rows), cache=self.cache.take(rows), hidden=self.hidden[rows])

    def join(self, other: Prefix) -> Prefix:
        """The sequences of both, of one length after one shared past: G + G' a history."""
        return replace(self, cache=self.cache.join(other.cache), hidden=torch.cat([self.hidden, other.hidden], 1))

    def flatten(self) -> Prefix:
        """Each sequence becomes a history of its own with a shared past: B, G -> B * G, 1."""
        groups = self.hidden.shape[1]
        return replace(
            self,
            memory=self.memory.repeat(groups),
            cache=self.cache.flatten(),
            hidden=self.hidden.flatten(0, 1)[:, None],
        )
