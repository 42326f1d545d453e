"""The verifier: a small network that scores the candidates again.

A weighted sum gives a view the same weight for every item and every history. The network gets all views of one
candidate, its popularity, its closest item in the history, the history's length and, where there is one, what the
pointer says, and learns which view counts when.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

__all__ = ["EXTRA", "Scorer", "Verifier", "closest", "log_lengths"]

# features beside the views: the pointer's score, where there is a pointer; the largest cosine between the texts of the
# candidate and of an item of the history; log(1 + training events of the candidate); log of the history's length
EXTRA = ("pointer", "closest", "popularity", "length")


class Scorer(nn.Module):
    """Features of a candidate -> its score; a linear part and one hidden layer.

    Args:
        features: how many there are.
        size: of the hidden layer.
    """

    DROPOUT = 0.1

    def __init__(self, features: int, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        # random weights are drawn when it is trained: drawn here, they would shift every random number after them
        self.linear = skip_init(nn.Linear, features, 1)
        self.network = nn.Sequential(
            skip_init(nn.Linear, features, size), nn.GELU(), nn.Dropout(self.DROPOUT), skip_init(nn.Linear, size, 1)
        )
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor) -> Tensor:
        """Features [..., F] -> scores [...]."""
        standard = ((features - self.mean) / self.scale).clamp(-5, 5)
        return (self.linear(standard) + self.network(standard))[..., 0]


class Verifier(Scorer):
    """A scorer of what all views say of a candidate, and more.

    Attributes:
        trusted: whether candidates are ranked by its scores; training decides (:mod:`recbole_stream.training.fit_verifier`).

    Args:
        views: how many views there are.
        size: of the hidden layer.
        popularity: training events of every item [n_items + 1].
        pointed: whether it gets a pointer's scores.
    """

    def __init__(self, views: int, size: int, popularity: Tensor, pointed: bool = False) -> None:
        self.extra = EXTRA if pointed else EXTRA[1:]
        super().__init__(views + len(self.extra), size)
        self.register_buffer("events", popularity, persistent=False)
        self.register_buffer("popularity", popularity.float().log1p(), persistent=False)
        self.register_buffer("trusted", torch.zeros((), dtype=torch.bool))

    def features(
        self, histories: Tensor, items: Tensor, views: Tensor, cosines: Tensor | None, pointed: Tensor | None = None
    ) -> Tensor:
        """All that it reads of candidates, [B, C, F + 3] or [B, C, F + 4].

        Args:
            histories: item ids [B, L].
            items: ids of the candidates [B, C].
            views: of them [B, C, F].
            cosines: between the texts of candidates and histories [B, C, L]; None where items have no text.
            pointed: the pointer's scores [B, C]; None where it is made without.
        """
        near = torch.zeros_like(views[..., 0]) if cosines is None else closest(histories, cosines)
        parts = [near, self.popularity[items], log_lengths(histories).expand_as(near)]
        if pointed is not None:
            parts.insert(0, pointed)
        return torch.cat([views, torch.stack(parts, -1)], -1)


def closest(histories: Tensor, cosines: Tensor) -> Tensor:
    """The largest cosine of a candidate with an item of the history: ids [B, L], cosines [B, C, L] -> [B, C]."""
    padding = (histories == 0)[:, None]
    # at padding the least that a cosine can be; an empty history has no closest item
    return cosines.masked_fill(padding, -1.0).amax(-1).masked_fill(padding.all(-1), 0.0)


def log_lengths(histories: Tensor) -> Tensor:
    """The logarithm of the items in each history, at least 1: ids [B, L] -> [B, 1]."""
    return (histories > 0).sum(1, keepdim=True).clamp(min=1).float().log()
