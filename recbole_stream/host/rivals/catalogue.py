"""What models share that score every item of the catalogue at once, so that nothing is searched."""

from __future__ import annotations

import torch
from recbole.config import Config
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_stream.data.histories import right_padded
from recbole_stream.data.samples import Batch
from recbole_stream.host.dataset import ItemTextDataset
from recbole_stream.host.models import StagedRecommender

__all__ = ["CatalogueRecommender"]


class CatalogueRecommender(StagedRecommender):
    """A model that ranks by exact scores of all items.

    Attributes:
        exclude_history: whether the items of the history that it reads are never recommended.
    """

    exclude_history = False

    def __init__(self, config: Config, dataset: ItemTextDataset) -> None:
        super().__init__(config, dataset)
        self.exclude_history = bool(config["exclude_history"])

    def score(self, histories: Tensor) -> Tensor:
        """Item ids [B, L], 0 as padding on the right -> scores of all items [B, n_items], the padding item's too."""
        return self.network(histories)

    @torch.no_grad()
    def scores_of_all(self, histories: Tensor) -> Tensor:
        """:meth:`score` of histories padded anywhere; -inf for the padding item and what may not be recommended."""
        histories = right_padded(histories, self.max_seq_length)
        scores = self.score(histories).float()
        if self.exclude_history:
            scores = scores.scatter(1, histories, -torch.inf)
        scores[:, 0] = -torch.inf
        return scores

    def rank_batch(self, batch: Batch, top: int) -> tuple[Tensor, Tensor]:
        scores = self.scores_of_all(batch.histories)
        if batch.seen is not None:
            scores[batch.seen.index()] = -torch.inf
        best, items = scores.topk(min(top, scores.shape[1]), 1)
        return items.masked_fill(best == -torch.inf, 0), best

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items [B, n_items]."""
        return self.scores_of_all(interaction[self.ITEM_SEQ])

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of one item a row, [B]."""
        return self.full_sort_predict(interaction).gather(1, interaction[self.ITEM_ID][:, None])[:, 0]
