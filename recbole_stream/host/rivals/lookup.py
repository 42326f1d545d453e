"""LookUp as a RecBole model: no training, one validation."""

from __future__ import annotations

import time

from recbole.config import Config
from recbole.data.dataloader import AbstractDataLoader

from recbole_stream.data.samples import Samples
from recbole_stream.host.dataset import ItemTextDataset, samples_of
from recbole_stream.host.items import ItemTable
from recbole_stream.host.models import transitions_of
from recbole_stream.host.rivals.catalogue import CatalogueRecommender
from recbole_stream.host.stages import Plan
from recbole_stream.host.trainer import GenerativeTrainer
from recbole_stream.model.lookup import Content
from recbole_stream.model.rivals.lookup import LookUpModel
from recbole_stream.training.loop import StageResult

__all__ = ["LookUp", "LookUpDataset", "LookUpTrainer"]


class LookUp(CatalogueRecommender):
    """Transitions and texts with two fixed weights; see :class:`LookUpModel`."""

    def __init__(self, config: Config, dataset: ItemTextDataset) -> None:
        super().__init__(config, dataset)
        content = None if dataset.text is None else Content(dataset.text, config["lookup_recency"])
        self.network = LookUpModel(
            transitions_of(config, samples_of(dataset), dataset.item_num),
            content,
            config["transition_weight"],
            config["text_weight"],
        )


class LookUpDataset(ItemTextDataset):
    """Without texts where these have no weight."""

    def _make_items(self, tokens: list[str]) -> ItemTable:
        if self.config["text_weight"]:
            return super()._make_items(tokens)
        return ItemTable(tokens, None, None, {"encoder": None})


class LookUpTrainer(GenerativeTrainer):
    """Trains nothing."""

    def plan(self, samples: Samples) -> list[Plan]:
        return []

    def conclude(self, samples: Samples, valid_data: AbstractDataLoader, show_progress: bool) -> None:
        """Validate the model as it is."""
        began = time.perf_counter()
        valid = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        self._record_valid(valid)
        self._finish(StageResult("LookUp", valid, seconds=time.perf_counter() - began))
