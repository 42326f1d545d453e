"""Rankings without the items that a user has already, for every sequential model alike."""

from __future__ import annotations

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_stream.host.models import GenerativeRecommender

__all__ = ["leave_out_seen"]


def leave_out_seen(model: SequentialRecommender) -> None:
    """Let a model rank only items that are not in the history.

    RecBole ranks a sequential model over all items, those just bought included. On data without repeats that costs
    every model, and not each the same.

    Args:
        model: changed in place.
    """
    score = model.full_sort_predict

    def full_sort_predict(interaction: Interaction) -> Tensor:
        histories = interaction[model.ITEM_SEQ]
        return score(interaction).view(len(histories), -1).scatter(1, histories, -torch.inf)

    model.full_sort_predict = full_sort_predict  # type: ignore[method-assign]
    if not isinstance(model, GenerativeRecommender):
        return
    search = model.rank

    def rank(histories: Tensor, top: int | None = None) -> tuple[Tensor, Tensor]:
        # as many more as may have to be left out
        items, scores = search(histories, (top or model.beams) + histories.shape[1])
        seen = (items[:, :, None] == histories[:, None]).any(-1)
        kept, order = scores.masked_fill(seen, -torch.inf).topk(min(top or model.beams, items.shape[1]), 1)
        return items.gather(1, order).masked_fill(kept == -torch.inf, 0), kept

    model.rank = rank  # type: ignore[method-assign]
