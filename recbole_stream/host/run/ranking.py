"""One pass over the test rows: RecBole's metrics, and the rank of every target for the run's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector, DataStruct
from recbole.trainer import Trainer
from torch import Tensor

from recbole_stream.host.trainer import GenerativeTrainer
from recbole_stream.training.processes import all_gather

__all__ = ["count_users", "describe_users", "hit_ranks", "join_shares", "rank_users", "target_ranks"]


def count_users(data: AbstractDataLoader) -> int:
    """How many users a split has; a user may have several rows."""
    dataset = data._dataset
    return len(dataset.inter_feat[dataset.uid_field].unique())


def describe_users(
    train: AbstractDataLoader, valid: AbstractDataLoader, test: AbstractDataLoader
) -> pd.DataFrame | None:
    """The test rows in the order in which they are ranked: every column of their ranks but the rank itself.

    Returns:
        None where ranks would not be one to a row: without full ranking, or where a user's items form a set.
    """
    data = test._dataset
    if not (isinstance(test, FullSortEvalDataLoader) and isinstance(data, SequentialDataset)):
        return None
    users, targets = data.inter_feat[data.uid_field].numpy(), data.inter_feat[data.iid_field].numpy()
    earlier = [loader._dataset.inter_feat[data.uid_field].numpy() for loader in (train, valid)]
    counts = np.bincount(np.concatenate(earlier), minlength=data.user_num)
    # RecBole makes no row of a user's first interaction, so a user's n-th row has n earlier interactions
    rows = counts[users] + pd.Series(users).groupby(users).cumcount().to_numpy() + 1
    shown = data.inter_feat[data.item_list_length_field].numpy()
    return pd.DataFrame(
        {
            "user": data.id2token(data.uid_field, users).astype(str),
            "target": data.id2token(data.iid_field, targets).astype(str),
            "history_length": np.maximum(rows, shown),  # ready-made splits may leave rows out
            "popularity": _events(train._dataset)[targets],
        }
    )


def _events(data: SequentialDataset) -> np.ndarray:
    """Training events of each item [n_items]: all targets, and the first item of each user, which is never a target."""
    features = data.inter_feat
    first = features[data.item_list_length_field] == 1
    items = torch.cat([features[data.iid_field], features[data.iid_field + data.config["LIST_SUFFIX"]][first, 0]])
    return np.bincount(items.numpy(), minlength=data.item_num)


def rank_users(
    trainer: Trainer, data: AbstractDataLoader, model_file: str | None = None, show_progress: bool = False
) -> tuple[Mapping[str, float], Tensor, int]:
    """Evaluate as RecBole does, in one pass, and keep what its evaluator drops.

    Args:
        trainer: of one of our models or of RecBole's.
        data: the split.
        model_file: checkpoint whose weights are loaded first; by default the trainer's best.
        show_progress: progress bar.

    Returns:
        RecBole's metrics; the rank of each target [N], 0 where it was not ranked; how far down ranks are known: for
        models with a score for every item the whole catalogue, for those that search max(topk).
    """
    stock = trainer.eval_collector
    searches = isinstance(trainer, GenerativeTrainer)
    depth = max(trainer.config["topk"]) if searches else data._dataset.item_num - 1
    trainer.eval_collector = collector = _RankCollector(trainer.config, stock.data_struct)
    try:
        metrics = trainer.evaluate(data, load_best_model=True, model_file=model_file, show_progress=show_progress)
    finally:
        trainer.eval_collector = stock
    ranks = torch.cat(collector.ranks)
    if len(ranks) < len(data._dataset):
        ranks = join_shares(all_gather(ranks))
    return metrics, ranks.masked_fill(ranks > depth, 0), depth


def join_shares(shares: Sequence[Tensor]) -> Tensor:
    """Join the shares [N_i] of n processes, of which the i-th took rows i, i + n, i + 2n, ..., into one tensor [N]."""
    whole = shares[0].new_empty(sum(map(len, shares)))
    for first, share in enumerate(shares):
        whole[first :: len(shares)] = share
    return whole


class _RankCollector(Collector):
    """RecBole's collector, which remembers the ranks besides.

    Attributes:
        ranks (list[Tensor]): of each batch [B], 0 where the target was not ranked.
    """

    def __init__(self, config: Config, data_struct: DataStruct) -> None:
        super().__init__(config)
        self.data_struct = data_struct
        self.ranks: list[Tensor] = []

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Interaction, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        counted = self.register.need("rec.topk")
        hits = self.data_struct["rec.topk"][-len(scores_tensor) :, :-1] if counted else None
        self.ranks.append(target_ranks(scores_tensor, positive_i.to(scores_tensor.device), hits).cpu())

    def get_data_struct(self) -> DataStruct:
        struct = super().get_data_struct()
        if not self.ranks:  # the trainer stored the hits of its search without scoring all items
            self.ranks.append(hit_ranks(struct["rec.topk"][:, :-1]))
        return struct


def target_ranks(scores: Tensor, targets: Tensor, hits: Tensor | None = None) -> Tensor:
    """Ranks of the targets among all items.

    Args:
        scores: [B, n_items].
        targets: item ids [B].
        hits: [B, k], 1 where the item that top-k put there is the target.

    Returns:
        [B]: the target's place among the top k. Beyond them it comes last of its equals, so that it is never counted
        as one of the k: which of equals ``torch.topk`` takes is not said anywhere.
    """
    own = scores.gather(1, targets[:, None])  # [B, 1]
    last = (scores >= own).sum(1)
    if hits is None:
        return last
    among = hit_ranks(hits)
    return torch.where(among > 0, among, last)


def hit_ranks(hits: Tensor) -> Tensor:
    """Places of the 1 in rows of hits [B, k] -> [B], from 1; 0 in rows without."""
    hits = hits > 0
    return (hits.int().argmax(1) + 1) * hits.any(1)
