"""Checkpoints of a run, loaded; how they rank, and the metrics of ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import recbole_stream  # noqa: F401  registers the models; without Ray, quick_start imports only after this

# isort: split
import numpy as np
import torch
from recbole.config import Config
from torch import Tensor

from recbole_stream.data.samples import Samples
from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import load as load_checkpoint
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.models import TIGER, STREAMRec
from recbole_stream.host.run.ranking import hit_ranks
from recbole_stream.reporting.ranks import mean_metric, row_metric

__all__ = ["TOP", "Loaded", "distinct", "load", "metrics", "rank_targets"]

TOP = 10


@dataclass
class Loaded:
    """A checkpoint: its configuration, the model in evaluation mode, the samples of the three splits on its device."""

    config: Config
    model: STREAMRec | TIGER
    train: Samples
    valid: Samples
    test: Samples


def load(run: Path, checkpoint: str) -> Loaded:
    """Load a checkpoint of a run.

    Args:
        run: the run's folder.
        checkpoint: such as ``STREAMRec-seed2020-SFT``.

    Raises:
        InputError: the run has no such checkpoint.
    """
    file = run / "checkpoints" / f"{checkpoint}.pth"
    if not file.is_file():
        raise InputError(f"{file} does not exist: name the folder of a run that has trained this model with this seed.")
    with quiet_argv():
        config, model, _, *loaders = load_checkpoint(file)
    model.eval()
    return Loaded(config, model, *(samples_of(loader._dataset).to(model.device) for loader in loaders))


def distinct(items: Tensor) -> Tensor:
    """Candidates [B, C], each user's sorted, 0 in place of one that came before."""
    items = items.sort(1).values
    repeated = torch.zeros_like(items, dtype=torch.bool)
    repeated[:, 1:] = items[:, 1:] == items[:, :-1]
    return items.masked_fill(repeated, 0)


@torch.no_grad()
def rank_targets(model: STREAMRec | TIGER, samples: Samples, batch_size: int) -> np.ndarray:
    """Ranks of the targets [N] from 1, infinite beyond the first ten; the model is left in evaluation mode."""
    model.eval()
    ranks = np.empty(len(samples))
    for batch in samples.ordered(batch_size):
        items, _ = model.rank_batch(batch, TOP)
        ranks[batch.rows.cpu().numpy()] = hit_ranks(items == batch.targets[:, None]).cpu().numpy()
    return np.where(ranks > 0, ranks, np.inf)


def metrics(ranks: np.ndarray) -> dict[str, float]:
    """NDCG@10 and Recall@10 of ranks, and the standard error of the former over users."""
    places = np.where(np.isfinite(ranks), ranks, 0)
    gains, hits = (row_metric(places, f"{name}@{TOP}") for name in ("ndcg", "recall"))
    return {
        "ndcg@10": float(mean_metric(gains)),
        "recall@10": float(mean_metric(hits)),
        "error": float(gains.std(ddof=1) / np.sqrt(len(gains))),
    }
