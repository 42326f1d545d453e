"""Next items without any training: what followed in other users' sequences, and what has similar texts.

The training-free heuristic that a learner has to beat: transitions of the training sequences, counted, and cosines of
frozen text vectors, with two fixed weights. TGH (a transition graph of the last one or two items, ranked by text) is
prior work of this kind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_stream.model.lookup import Content, Transitions, log_shares

__all__ = ["LookUpModel"]


class LookUpModel(nn.Module):
    """History -> score of every item: ``transition_weight * log(share + .001) + text_weight * cosines``.

    Args:
        transitions: of the training sequences.
        content: similarity of texts; None where items have no text.
        transition_weight, text_weight: see above; they are not trained.
    """

    def __init__(
        self, transitions: Transitions, content: Content | None, transition_weight: float, text_weight: float
    ) -> None:
        super().__init__()
        self.transitions, self.content = transitions, content
        # parameters, though nothing trains them: RecBole's trainers ask for at least one
        self.weights = nn.Parameter(torch.tensor([transition_weight, text_weight]), requires_grad=False)

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> scores [B, n_items], the padding item's too."""
        scores = self.weights[0] * log_shares(self.transitions(histories))
        return scores if self.content is None else scores + self.weights[1] * self.content(histories)
