"""The reasoning that a STREAM-Rec writes before an item, step by step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.model.tiger import TIGERModel

__all__ = ["Thinking", "think"]


@dataclass
class Thinking:
    """Of B histories, with l reasoning tokens.

    Attributes:
        tokens: written, [B, l].
        probabilities: of each token after those before it, [B, l].
        similarities: cosine between the state s_j before the first token (j = 0) and after each, and the representation
            t of every item, the mean of its token embeddings: [B, l + 1, n_items + 1]; -inf for the padding item.
            Eq. 14 trains s_j to be near the target's t, so the nearest items are what the model has in mind.
    """

    tokens: Tensor
    probabilities: Tensor
    similarities: Tensor


@torch.no_grad()
def think(network: STREAMRecModel | TIGERModel, histories: Tensor) -> Thinking | None:
    """The most likely reasoning after histories, item ids [B, L]; None for a model that writes none."""
    if isinstance(network, TIGERModel) or not int(network.steps):
        return None
    written, prefix = network.think(network.begin(histories))
    hidden = prefix.hidden[:, 0]  # d_0 .. d_l, [B, l + 1, H]
    chances = network.tokens.logits(hidden[:, :-1]).float().softmax(-1)
    items = torch.arange(network.tokens.n_items, device=histories.device)
    targets = F.normalize(network.tokens.representation(items).float(), dim=-1)
    near = F.normalize(network.reasoning.states(hidden).float(), dim=-1) @ targets.T
    near[..., 0] = -torch.inf
    return Thinking(written, chances.gather(-1, written[..., None])[..., 0], near)
