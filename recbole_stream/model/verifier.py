"""The verifier: a small network that scores the candidates again.

A weighted sum gives a view the same weight for every item and every history. The network gets all views of one
candidate, its popularity, its closest item in the history and the history's length, and learns which view counts when.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

__all__ = ["EXTRA", "Verifier"]

# features beside the views: the largest cosine between the texts of the candidate and of an item of the history;
# log(1 + training events of the candidate); log of the history's length
EXTRA = ("closest", "popularity", "length")


class Verifier(nn.Module):
    """Features of a candidate -> its score; a linear part and one hidden layer.

    Attributes:
        trusted: whether candidates are ranked by its scores; training decides (:mod:`recbole_stream.training.fit_verifier`).

    Args:
        views: how many views there are.
        size: of the hidden layer.
        popularity: training events of every item [n_items + 1].
        text: unit vectors of the items' texts [n_items + 1, D]; None where items have no text ("closest" is then 0).
    """

    DROPOUT = 0.1

    def __init__(self, views: int, size: int, popularity: Tensor, text: Tensor | None) -> None:
        super().__init__()
        features = views + len(EXTRA)
        self.register_buffer("events", popularity, persistent=False)
        self.register_buffer("popularity", popularity.float().log1p(), persistent=False)
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("trusted", torch.zeros((), dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        # random weights are drawn when it is trained: drawn here, they would shift every random number after them
        self.linear = skip_init(nn.Linear, features, 1)
        self.network = nn.Sequential(
            skip_init(nn.Linear, features, size), nn.GELU(), nn.Dropout(self.DROPOUT), skip_init(nn.Linear, size, 1)
        )
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def features(self, histories: Tensor, items: Tensor, views: Tensor) -> Tensor:
        """Item ids [B, L] and [B, C], views [B, C, F] -> features [B, C, F + 3]."""
        if self.text is None:
            closest = torch.zeros_like(views[..., 0])
        else:
            closest = self.text[items] @ self.text[histories].transpose(1, 2)  # [B, C, L]
            padding = (histories == 0)[:, None]
            # at padding the least that a cosine can be; an empty history has no closest item
            closest = closest.masked_fill(padding, -1.0).amax(-1).masked_fill(padding.all(-1), 0.0)
        length = (histories > 0).sum(1, keepdim=True).clamp(min=1).float().log().expand_as(closest)
        return torch.cat([views, torch.stack([closest, self.popularity[items], length], -1)], -1)

    def forward(self, features: Tensor) -> Tensor:
        """Features [..., F + 3] -> scores [...]."""
        standard = ((features - self.mean) / self.scale).clamp(-5, 5)
        return (self.linear(standard) + self.network(standard))[..., 0]
