"""Latte as a RecBole model: TIGER with several latent start tokens."""

from __future__ import annotations

from recbole.config import Config

from recbole_stream.decoding.mixture import MixtureRanker
from recbole_stream.host.dataset import SemanticIDDataset
from recbole_stream.host.models import TIGER, backbone_of, tokens_of
from recbole_stream.model.rivals.latte import LatteModel
from recbole_stream.training.latte import Latent
from recbole_stream.training.loop import Objective

__all__ = ["Latte"]


class Latte(TIGER):
    """See :class:`LatteModel`; data set, trainer and keys are TIGER's."""

    def __init__(self, config: Config, dataset: SemanticIDDataset) -> None:
        super().__init__(config, dataset)
        self.network = LatteModel(backbone_of(config), tokens_of(config, dataset), config["latte_starts"])

    @property
    def ranker(self) -> MixtureRanker:
        """What ranks: the mean over all start tokens."""
        return MixtureRanker(self.network, self.trie, self.beams, 0, self.max_seq_length)

    def first_objective(self) -> Objective:
        return Latent(self.network, self.label_smoothing)
