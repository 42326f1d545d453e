"""Test-time scaling: accuracy against reasoning steps, and against sampled reasoning paths.

Takes the checkpoints after Stage 2 and Stage 3 and the validation users. Steps: greedy reasoning of 0 to 2l tokens.
Paths: P sampled reasonings of l tokens; the candidates are those that a beam search after each of them finds, and an
item's score is the mean of its likelihood over the paths.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from experiments.runs import distinct, load, metrics
from recbole_stream.data.samples import Samples
from recbole_stream.decoding.beam import beam_search, score_shared_items
from recbole_stream.decoding.rollout import sample_rollouts
from recbole_stream.decoding.trie import Trie
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.reporting.plots import plot_scaling
from recbole_stream.training.view_weights import ranks_among

__all__ = ["rank_by_paths", "rank_by_steps", "scale"]

PATHS = (1, 2, 4, 8, 16)
BEAMS = 20  # after each path
USERS, AT_ONCE = 2000, 32


def scale(run: Path, seed: int) -> pd.DataFrame:
    """One line a point: axis, amount, series, mean and error; the plot goes into the run's folder.

    Raises:
        InputError: the run lacks a checkpoint of Stage 2 or 3 with this seed.
    """
    lines = []
    for stage in ("SFT", "RL"):
        loaded = load(run, f"STREAMRec-seed{seed}-{stage}")
        model, samples = loaded.model, loaded.valid
        network, trained = model.network, int(model.network.steps)
        some = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))[:USERS]
        for steps in range(2 * trained + 1):
            ranks = rank_by_steps(network, samples, some, model.trie, steps)
            lines.append({"axis": "reasoning steps", "amount": steps, "series": stage, **metrics(ranks)})
        for paths in PATHS:
            torch.manual_seed(seed)
            ranks = rank_by_paths(network, samples, some, model.trie, paths, trained)
            lines.append({"axis": "paths", "amount": paths, "series": stage, **metrics(ranks)})
    table = pd.DataFrame(lines)
    shown = table.rename(columns={"ndcg@10": "mean", "error": "std"})
    plot_scaling(shown, "ndcg@10", split="validation").savefig(run / f"scaling-seed{seed}.png", dpi=150)
    return table


@torch.no_grad()
def rank_by_steps(network: STREAMRecModel, samples: Samples, rows: Tensor, trie: Trie, steps: int):
    """Rank of each user's target [U] after so many greedy reasoning tokens."""

    def candidates(histories: Tensor) -> tuple[Tensor, Tensor]:
        _, thought = network.think(network.begin(histories), steps)
        return beam_search(thought, trie, BEAMS)

    return _ranks(candidates, samples, rows, f"{steps} steps")


@torch.no_grad()
def rank_by_paths(network: STREAMRecModel, samples: Samples, rows: Tensor, trie: Trie, paths: int, steps: int):
    """Rank of each user's target [U] by its mean likelihood over sampled reasonings."""

    def candidates(histories: Tensor) -> tuple[Tensor, Tensor]:
        _, thought = sample_rollouts(network.begin(histories), paths, steps, network.tokens.levels)
        found, _ = beam_search(thought.flatten(), trie, BEAMS)
        items = distinct(found.unflatten(0, (len(histories), paths)).flatten(1))
        scores = score_shared_items(thought, items).logsumexp(1) - torch.tensor(paths).log()
        return items, scores.masked_fill(items == 0, -torch.inf)

    return _ranks(candidates, samples, rows, f"{paths} paths")


def _ranks(candidates, samples: Samples, rows: Tensor, description: str):
    order = rows[samples.lengths[rows].argsort(stable=True)]
    ranks = []
    for part in tqdm(order.split(AT_ONCE), desc=description, ncols=100, leave=False, disable=None):
        batch = samples.batch(part)
        items, scores = candidates(batch.histories)
        ranks.append(ranks_among(scores.cpu().numpy(), (items == batch.targets[:, None]).cpu().numpy()))
    return np.concatenate(ranks)
