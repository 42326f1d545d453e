"""The matching tower: a state of the history against a vector of every item in the catalogue.

Eq. 14 asks of the states s_j that they match the target representation t, the mean of the target's token
embeddings. A state that is to rank the whole catalogue needs more than t, since items share their tokens with others:
an item's vector is the token mean plus an embedding of its own plus a projection of its text. The tower
has an encoder of its own: two encoders that were trained apart make different errors, and the weighted sum of both
views gains more from that than from shared weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.backbone import BackboneConfig, Encoder, RMSNorm
from recbole_stream.model.linear import Linear, product
from recbole_stream.model.tokens import padding_bias

__all__ = ["Matcher"]


class Matcher(nn.Module):
    """History -> state s [H]; item -> vector v [H]; logit s · v over the catalogue.

    Args:
        config: sizes; the encoder's layers and the dropout are used.
        table: tokens of every item [n_items + 1, m], row 0 being padding.
        vocabulary: number of tokens V.
        text: embeddings of the items' texts [n_items + 1, D], row 0 unused; None where items have no text.
        centre, spread: what is taken off each embedding [D], and what then divides it; by default their mean and the
            deviation of all their numbers. A catalogue that has grown keeps its first.
    """

    def __init__(
        self,
        config: BackboneConfig,
        table: Tensor,
        vocabulary: int,
        text: Tensor | None,
        centre: Tensor | None = None,
        spread: Tensor | None = None,
    ) -> None:
        super().__init__()
        size = config.hidden_size
        self.register_buffer("table", table.clone(), persistent=False)
        self.own = nn.Embedding(len(table), size)
        self.tokens = nn.Embedding(vocabulary, size)
        # small, so that all logits are nearly equal when training starts
        nn.init.normal_(self.own.weight, std=0.02)
        nn.init.normal_(self.tokens.weight, std=0.04)
        self.project = None
        if text is not None:
            centred = text - (text[1:].mean(0) if centre is None else centre)
            spread = centred[1:].std().clamp(min=1e-6) if spread is None else spread
            self.register_buffer("text", centred / spread, persistent=False)
            self.project = Linear(text.shape[1], size)
            nn.init.normal_(self.project.weight, std=0.1 * text.shape[1] ** -0.5)
        self.norm = RMSNorm(size)
        self.encoder = Encoder(config)
        self.register_buffer("frozen", None, persistent=False)

    def vectors(self) -> Tensor:
        """One vector an item, [n_items + 1, H]."""
        if self.frozen is not None:
            return self.frozen
        vectors = self.own.weight + F.embedding_bag(self.table, self.tokens.weight, mode="mean")
        return vectors if self.project is None else vectors + self.project(self.text)

    @torch.no_grad()
    def freeze(self) -> None:
        """Make the vectors once, for a tower whose weights change no more, and let go of the texts' vectors."""
        self.frozen, self.text = self.vectors(), None

    def states(self, histories: Tensor, vectors: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> the encoder's output at the last item, [B, H]."""
        inputs = self.norm(F.embedding(histories, vectors))
        hidden = self.encoder(inputs, padding_bias(histories))
        last = (histories > 0).sum(1).sub(1).clamp(min=0)
        return hidden[torch.arange(last.shape[0], device=last.device), last]  # len() would fix the size in a graph

    def forward(self, histories: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Logits over the catalogue [B, n_items + 1], -inf for the padding item.

        Args:
            histories: item ids [B, L].
            vectors: result of :meth:`vectors`, for callers that need it more than once; computed here by default.
        """
        vectors = self.vectors() if vectors is None else vectors
        logits = product(self.states(histories, vectors), vectors).float()
        closed = torch.zeros(logits.shape[1], dtype=torch.bool, device=logits.device)
        closed[0] = True
        return logits.masked_fill(closed, -torch.inf)
