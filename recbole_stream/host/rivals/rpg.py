"""RPG as a RecBole model, trained on whole sequences."""

from __future__ import annotations

import torch
from recbole.config import Config

from recbole_stream.data.samples import Samples, whole_sequences
from recbole_stream.host.dataset import SemanticIDDataset
from recbole_stream.host.rivals.catalogue import CatalogueRecommender
from recbole_stream.host.trainer import TIGERTrainer
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.rivals.rpg import RPGModel
from recbole_stream.training.all_positions import AllPositions
from recbole_stream.training.loop import Objective

__all__ = ["RPG", "RPGDataset", "RPGTrainer"]


class RPG(CatalogueRecommender):
    """Long semantic IDs, all codes predicted at once; see :class:`RPGModel`."""

    def __init__(self, config: Config, dataset: SemanticIDDataset) -> None:
        super().__init__(config, dataset)
        names = ("hidden_size", "inner_size", "n_heads", "head_size", "encoder_layers", "dropout")
        ids = dataset.semantic_ids
        self.network = RPGModel(
            BackboneConfig(**{name: config[name] for name in names}),
            torch.from_numpy(ids.codes),
            max(ids.codebook_sizes),
            config["temperature"],
        )

    def first_objective(self) -> Objective:
        return AllPositions(self.network, "RPG")


class RPGDataset(SemanticIDDataset):
    """The name under which RecBole looks for RPG's dataset."""


class RPGTrainer(TIGERTrainer):
    """One stage, on whole sequences."""

    def training_samples(self, samples: Samples) -> Samples:
        return whole_sequences(samples)
