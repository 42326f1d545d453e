"""TIGER: history -> the m tokens of the next item, without reasoning.

Rajput et al., "Recommender Systems with Generative Retrieval" (NeurIPS 2023). It
is STREAM-Rec's fast twin: the same tokenizer, vocabulary and backbone. A frozen
copy of it is the reference distribution of Eq. 16-18 and 26.
"""

from __future__ import annotations

from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, Encoder, Memory
from recbole_stream.model.prefix import Prefix, TokenDecoder
from recbole_stream.model.tokens import ItemTokens

__all__ = ["TIGERModel"]


class TIGERModel(nn.Module):
    """Encoder over the history, decoder over the item's tokens.

    Args:
        config: sizes of the backbone.
        tokens: the vocabulary and the items' semantic IDs.
    """

    def __init__(self, config: BackboneConfig, tokens: ItemTokens) -> None:
        super().__init__()
        self.tokens = tokens
        self.encoder = Encoder(config)
        self.decoder = TokenDecoder(config)

    def memory(self, histories: Tensor) -> Memory:
        """Item ids [B, L] (0 is padding, on the right) -> what the decoder attends to."""
        inputs, bias = self.tokens.history(histories)
        return self.decoder.stack.memory(self.encoder(inputs, bias), bias)

    def begin(self, histories: Tensor) -> Prefix:
        """The prefix before the first token of the item."""
        return self.decoder.begin(self.tokens, self.memory(histories))

    def item_logits(self, histories: Tensor, targets: Tensor) -> Tensor:
        """Teacher forcing: logits [B, m, V] of the target's tokens, targets [B]."""
        labels = self.tokens.table[targets]
        inputs = self.tokens.embedding(labels[:, None, :-1])  # [B, 1, m - 1, H]
        return self.tokens.logits(self.decoder(inputs, self.memory(histories))[:, 0])
