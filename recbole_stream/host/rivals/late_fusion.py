"""LateFusion as a RecBole model: SASRec trained on whole sequences, then a gate fitted on validation users."""

from __future__ import annotations

from recbole.config import Config

from recbole_stream.data.samples import Samples, whole_sequences
from recbole_stream.host.dataset import ItemTextDataset, samples_of
from recbole_stream.host.models import transitions_of
from recbole_stream.host.rivals.catalogue import CatalogueRecommender
from recbole_stream.host.stages import Plan
from recbole_stream.host.trainer import STREAMRecTrainer
from recbole_stream.model.backbone import BackboneConfig
from recbole_stream.model.deliberation import Deliberation
from recbole_stream.model.lookup import Content
from recbole_stream.model.rivals.causal import SASRecModel
from recbole_stream.model.rivals.late_fusion import LateFusionModel
from recbole_stream.training.all_positions import AllPositions
from recbole_stream.training.loop import Objective

__all__ = ["LateFusion", "LateFusionDataset", "LateFusionTrainer"]


class LateFusion(CatalogueRecommender):
    """SASRec, co-occurrence and texts; see :class:`LateFusionModel`.

    Attributes:
        candidates: items a user on which the gate is fitted.
        trie, beams: of a search for the likelihood, which there is not.
    """

    trie, beams = None, 0

    def __init__(self, config: Config, dataset: ItemTextDataset) -> None:
        super().__init__(config, dataset)
        names = ("hidden_size", "inner_size", "n_heads", "head_size", "encoder_layers", "dropout")
        sasrec = SASRecModel(BackboneConfig(**{name: config[name] for name in names}), dataset.item_num)
        content = Content(dataset.text, config["lookup_recency"])
        self.network = LateFusionModel(
            Deliberation(
                sasrec, transitions_of(config, samples_of(dataset), dataset.item_num), content, ("likelihood",), None
            )
        )
        self.candidates = config["candidates"]

    def first_objective(self) -> Objective:
        return AllPositions(self.network.deliberation.matcher, "SASRec")


class LateFusionDataset(ItemTextDataset):
    """The name under which RecBole looks for LateFusion's dataset."""


class LateFusionTrainer(STREAMRecTrainer):
    """SASRec, then the gate."""

    conclusion = "Fusion"

    def training_samples(self, samples: Samples) -> Samples:
        return whole_sequences(samples)

    def plan(self, samples: Samples) -> list[Plan]:
        return [Plan(0, self.model.first_objective, self.schedule("epochs", "learning_rate", "stopping_step"))]
