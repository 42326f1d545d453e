"""Late fusion: SASRec, co-occurrence and texts, each a score of every item, weighed by a gate.

The nearest published peer of deliberation is LIME-Rec: SASRec, co-occurrence and frozen texts, with a learnt penalty on
repeats and a gate fitted on validation users. Here the views and the fit are those of deliberation without its
likelihood and its verifier, and the matching tower is a SASRec that sees item ids alone.
"""

from __future__ import annotations

from torch import Tensor, nn

from recbole_stream.model.deliberation import RANKINGS, Deliberation

__all__ = ["LateFusionModel", "fuse"]


def fuse(views: Tensor, weights: Tensor) -> Tensor:
    """The gate: views [.., F], weights [F] -> their weighted sum [..]."""
    return (views * weights).sum(-1)


class LateFusionModel(nn.Module):
    """History -> score of every item: by SASRec until the gate has been fitted, then by the weighted sum.

    Args:
        deliberation: its matcher is the SASRec; the view likelihood is switched off.
    """

    def __init__(self, deliberation: Deliberation) -> None:
        super().__init__()
        self.deliberation = deliberation
        deliberation.matcher.requires_grad_(True)
        deliberation.ranking.fill_(RANKINGS.index("states"))

    def forward(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> scores [B, n_items], the padding item's too."""
        slow = self.deliberation
        if RANKINGS[int(slow.ranking)] == "states":
            return slow.matcher(histories).log_softmax(-1)
        return fuse(slow.catalogue(histories), slow.weights[1:])
