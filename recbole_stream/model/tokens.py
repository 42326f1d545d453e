"""The shared token vocabulary: items as semantic IDs, tokens as vectors, vectors as probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_stream.model.linear import Linear, product

__all__ = ["ItemTokens", "padding_bias"]


def padding_bias(items: Tensor) -> Tensor:
    """[B, L] item ids with 0 as padding -> [B, 1, 1, L], 0 at items and -inf at padding.

    A history without any item would leave the softmax without a position, so its first one stays open.
    """
    closed = items == 0
    closed[:, 0] = False
    return torch.zeros_like(items, dtype=torch.float32).masked_fill(closed, -torch.inf)[:, None, None]


class ItemTokens(nn.Module):
    """The vocabulary of code tokens and the semantic ID of every item.

    Level *d*, code *k* is one token with an embedding of its own; the same
    embeddings read tokens and, transposed, write them (Eq. 11).

    Args:
        codes: semantic IDs ``[n_items, m]`` of items 1 .. n_items (0 is padding), codes from 0 in each level.
        sizes: entries of each level's codebook, length m.
        hidden_size: width H of the embeddings.
        temperature: the softmax temperature of Eq. 11.
        history_input: ``"tokens"`` gives the encoder m vectors an item, ``"item"`` one, a projection of
            the item's m embeddings (a third of the time, no loss in our measurements).
    """

    def __init__(
        self, codes: Tensor, sizes: Sequence[int], hidden_size: int, temperature: float, history_input: str
    ) -> None:
        super().__init__()
        self.levels, self.sizes = len(sizes), tuple(int(size) for size in sizes)
        self.vocabulary = sum(self.sizes)
        self.scale = hidden_size**-0.5 / temperature
        offsets = torch.tensor((0, *self.sizes[:-1])).cumsum(0)
        # row 0, the padding item, is never read as an item: its positions are masked in the encoder
        self.register_buffer("offsets", offsets)  # [m]
        self.register_buffer("table", F.pad(codes + offsets, (0, 0, 1, 0)))  # [n_items + 1, m]
        self.embedding = nn.Embedding(self.vocabulary, hidden_size)
        self.project = Linear(self.levels * hidden_size, hidden_size) if history_input == "item" else None

    @property
    def n_items(self) -> int:
        """Rows of the table, the padding item included (RecBole's ``item_num``)."""
        return self.table.shape[0]

    def codes(self, tokens: Tensor) -> Tensor:
        """Tokens [.., m] -> codes from 0 within each level; outside 0 .. K_d - 1 where the level is another."""
        return tokens - self.offsets

    def level(self, depth: int) -> slice:
        """The tokens of one level within the vocabulary."""
        start = sum(self.sizes[:depth])
        return slice(start, start + self.sizes[depth])

    def history(self, items: Tensor) -> tuple[Tensor, Tensor]:
        """Item ids [B, L], 0 as padding -> encoder inputs [B, L or L * m, H] and their padding bias."""
        vectors = self.embedding(self.table[items])  # [B, L, m, H]
        bias = padding_bias(items)
        if self.project is not None:
            return self.project(vectors.flatten(2)), bias
        return vectors.flatten(1, 2), bias.repeat_interleave(self.levels, -1)

    def representation(self, items: Tensor) -> Tensor:
        """``t``: the mean of the items' m token embeddings, [..] -> [.., H]."""
        return self.embedding(self.table[items]).mean(-2)

    def logits(self, hidden: Tensor) -> Tensor:
        """Eq. 11: hidden states [.., H] -> logits over the vocabulary [.., V], divided by the temperature."""
        return product(hidden * self.scale, self.embedding.weight)
