"""Two models of a user's own: TIGER with another objective, and a recommender of RecBole's kind."""

import torch
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_stream.host.models import TIGER
from recbole_stream.training.loop import Objective


class Focal(Objective):
    name = "focal"

    def __init__(self, network, gamma):
        self.network, self.gamma = network, gamma

    def losses(self, batch):
        log_p = self.network.item_logits(batch.histories, batch.targets).log_softmax(-1)  # [B, m, V]
        log_p = log_p.gather(-1, self.network.tokens.table[batch.targets][..., None])
        yield -((1 - log_p.exp()) ** self.gamma * log_p).mean(), {"sure": log_p.exp().mean()}


class FocalTIGER(TIGER):  # gamma and its default stand in FocalTIGER.yaml
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.gamma = config["gamma"]

    def first_objective(self):
        return Focal(self.network, self.gamma)


class MeanRec(SequentialRecommender):  # the mean of the history's items; embedding_size stands in MeanRec.yaml
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.items = torch.nn.EmbeddingBag(self.n_items, config["embedding_size"], mode="mean", padding_idx=0)

    def full_sort_predict(self, interaction):
        return self.items(interaction[self.ITEM_SEQ]) @ self.items.weight.T  # [B, n_items]

    def calculate_loss(self, interaction):
        return torch.nn.functional.cross_entropy(self.full_sort_predict(interaction), interaction[self.POS_ITEM_ID])
