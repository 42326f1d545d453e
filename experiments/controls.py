"""What the content of the reasoning is worth, and what two models are worth without any.

Stage 2 again from the same checkpoint of Stage 1, with other tokens in place of the collected traces: always the same
ones, or random ones (at test time too). Beside them TIGER, and where the run has two seeds of it the sum of both: an
ensemble gain is no gain of reasoning. All figures are of the validation users.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from experiments.runs import Loaded, distinct, load, metrics, rank_targets
from recbole_stream.decoding.beam import beam_search, score_items
from recbole_stream.decoding.rank import thought
from recbole_stream.host.trainer import STREAMRecTrainer
from recbole_stream.model.prefix import Prefix
from recbole_stream.model.streamrec import STREAMRecModel
from recbole_stream.training.finetune import Finetune
from recbole_stream.training.loop import StageContext, train_stage
from recbole_stream.training.view_weights import ranks_among

__all__ = ["control", "replace_traces", "sum_of_two"]

AT_ONCE = 128


def control(run: Path, seed: int) -> pd.DataFrame:
    """One line a model: NDCG@10 and Recall@10 on validation, the former's standard error, seconds of training.

    Raises:
        InputError: the run has no checkpoint of Stage 1 with this seed.
    """
    lines = []
    for tokens in ("collected", "constant", "random"):
        loaded = load(run, f"STREAMRec-seed{seed}-PT")
        if not lines:
            lines.append({"model": "PT", **_metrics(loaded), "seconds": 0.0})
        lines.append({"model": f"SFT on {tokens} tokens", **_finetune(loaded, tokens)})
    tigers = sorted((run / "checkpoints").glob("TIGER-seed*.pth"))
    twins = [load(run, file.stem) for file in tigers[:2]]
    lines += [{"model": file.stem.removesuffix("-TIGER"), **_metrics(twin)} for file, twin in zip(tigers, twins)]
    if len(twins) == 2:
        lines.append({"model": "both TIGERs summed", **metrics(sum_of_two(*twins))})
    return pd.DataFrame(lines)


def replace_traces(objective: Finetune, tokens: str, seed: int) -> None:
    """Let Stage 2 learn other tokens than it collects.

    Args:
        objective: changed in place; with random tokens its model also reasons at random from here on.
        tokens: "constant" or "random".
        seed: of the random ones.
    """
    vocabulary, steps = objective.model.tokens.vocabulary, objective.options.steps
    generator = torch.Generator().manual_seed(seed)
    collect = objective.prepare

    def prepare(epoch: int) -> dict[str, float]:
        scalars = collect(epoch)
        if tokens == "constant":
            objective.traces[:] = torch.arange(steps)
        elif scalars:
            objective.traces[:] = torch.randint(vocabulary, objective.traces.shape, generator=generator)
        return scalars

    objective.prepare = prepare
    if tokens == "random":
        objective.model.think = _at_random(objective.model, generator)


def _at_random(network: STREAMRecModel, generator: torch.Generator):
    """``network.think`` with random tokens."""

    def think(prefix: Prefix, steps: int | None = None) -> tuple[Tensor, Prefix]:
        steps = int(network.steps) if steps is None else steps
        start = prefix.hidden
        tokens = torch.randint(network.tokens.vocabulary, (len(start), steps), generator=generator).to(start.device)
        prefix = prefix.read(tokens[:, None])
        prefix.hidden = torch.cat([start, prefix.hidden], 2)
        return tokens, prefix

    return think


def _finetune(loaded: Loaded, tokens: str) -> dict[str, float]:
    """Stage 2 as the run's configuration has it, from Stage 1's checkpoint."""
    network, seed = loaded.model.network, loaded.config["seed"]
    trainer = STREAMRecTrainer(loaded.config, loaded.model)
    plan = trainer.plan(loaded.train)[1]
    objective = plan.objective()
    if tokens != "collected":
        replace_traces(objective, tokens, seed)
    context = StageContext(lambda: _metrics(loaded), "ndcg@10", precision=trainer.precision)
    result = train_stage(network, objective, plan.schedule, loaded.train, context)
    return {**result.valid, "seconds": result.seconds}


def _metrics(loaded: Loaded) -> dict[str, float]:
    return metrics(rank_targets(loaded.model, loaded.valid, AT_ONCE))


@torch.no_grad()
def sum_of_two(first: Loaded, second: Loaded) -> np.ndarray:
    """Rank of each validation user's target by the sum of two models' log-likelihoods, [U], short histories first.

    The candidates are those that either's beam search finds; both share one catalogue.
    """
    ranks, models = [], (first.model, second.model)
    for batch in first.valid.ordered(AT_ONCE):
        prefixes = [thought(model.network, batch.histories) for model in models]
        found = [beam_search(prefix, model.trie, model.beams)[0] for prefix, model in zip(prefixes, models)]
        items = distinct(torch.cat(found, 1))
        scores = sum(score_items(prefix, items) for prefix in prefixes).masked_fill(items == 0, -torch.inf)
        ranks.append(ranks_among(scores.cpu().numpy(), (items == batch.targets[:, None]).cpu().numpy()))
    return np.concatenate(ranks)
