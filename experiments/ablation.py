"""The final model with each part switched off, and what the part costs.

Takes the checkpoint with which a run ended its deliberation, leaves out one view after another, the pointer, the
verifier, or all but one view, and learns to deliberate again, as the run itself does with ``views_off``, ``pointer_size``
and ``verifier_size``; then ranks the test users. What was trained before (what generates, the matching tower) stays.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import torch

from experiments.runs import Loaded, load, metrics, rank_targets
from recbole_stream.host.models import learn_pointer
from recbole_stream.model.deliberation import VIEWS, Deliberation
from recbole_stream.model.verifier import Verifier
from recbole_stream.reporting.results import read_results
from recbole_stream.training.fit_views import Learnt, learn_to_deliberate

__all__ = ["ablate", "relearn"]

ALONE = ("likelihood", "matching", "transitions", "text")


def ablate(run: Path, seed: int) -> pd.DataFrame:
    """One line for each choice of parts.

    Returns:
        NDCG@10 and Recall@10 on validation (each user ranked by what was fitted on others) and test; seconds of training
        that the parts took, those of earlier stages as the run measured them; seconds of ranking 1,000 test users; the
        weights, before the verifier.

    Raises:
        InputError: the run has no checkpoint of a deliberation with this seed.
    """
    loaded = load(run, f"STREAMRec-seed{seed}-Deliberation")
    slow = loaded.model.network.deliberation
    trained = {
        row.stage: row.train_seconds for row in read_results(run) if row.model == "STREAMRec" and row.seed == seed
    }
    written = max((trained[stage] for stage in ("PT", "SFT", "RL") if stage in trained), default=0.0)
    seconds = {"likelihood": written, "matching": trained["States"] - written}
    views = [view for view, used in zip(VIEWS, slow.used) if used]
    pointed = slow.pointer is not None
    # views, verifier, pointer, which nothing but the verifier reads
    choices = {"all": (views, True, pointed)}
    choices |= {f"without {off}": ([view for view in views if view != off], True, pointed) for off in views}
    choices |= {"without pointer": (views, True, False)} if pointed else {}
    choices["without verifier"] = (views, False, False)
    choices |= {
        f"{view} and repeats, no verifier": ([view, "repeats"], False, False)
        for view in ALONE
        if {view, "repeats"} <= set(views)
    }
    lines = []
    for name, (kept, verified, points) in choices.items():
        line = _measure(loaded, slow, kept, verified, points, sum(seconds.get(view, 0.0) for view in kept))
        lines.append({"parts": name} | line)
    return pd.DataFrame(lines)


def relearn(
    loaded: Loaded,
    slow: Deliberation,
    views: Collection[str],
    verified: bool,
    pointed: bool,
    keep_likelihood: bool = False,
) -> Learnt:
    """Let the model deliberate by some parts only, which learn again on the validation users.

    Args:
        loaded: its model gets a copy of the deliberation.
        slow: the whole deliberation, which stays as it is.
        views: those that stay on.
        verified: whether the verifier stays, too.
        pointed: whether the verifier reads the pointer, which learns again as well.
        keep_likelihood: see :func:`learn_to_deliberate`.
    """
    config, model, part = loaded.config, loaded.model, copy.deepcopy(slow)
    part.switch_off([view for view in VIEWS if view not in views])
    part.weights.copy_(part.first_weights())  # of those fitted, the likelihood's may be 0: nothing would be generated
    if not pointed:
        part.pointer = None
    if part.verifier is not None:
        size = part.verifier.network[0].out_features
        part.verifier = Verifier(len(VIEWS), size, slow.verifier.events, pointed) if verified else None
    model.network.deliberation = part
    some = torch.randperm(len(loaded.valid), generator=torch.Generator().manual_seed(config["seed"]))
    if part.pointer is not None:
        learn_pointer(model, config, loaded.train, show_progress=True)
    return learn_to_deliberate(
        model.network, loaded.valid, some[: config["weigh_users"]], model.trie, model.beams, model.candidates,
        config["seed"], show_progress=True, keep_likelihood=keep_likelihood,
    )  # fmt: skip


def _measure(
    loaded: Loaded, slow: Deliberation, views: Collection[str], verified: bool, pointed: bool, seconds: float
) -> dict[str, float]:
    """A line of the table for some parts of the deliberation; ``seconds`` are those of the stages before."""
    config, model = loaded.config, loaded.model
    began = time.perf_counter()
    learnt = relearn(loaded, slow, views, verified, pointed)
    learning, began = time.perf_counter() - began, time.perf_counter()
    ranks = rank_targets(model, loaded.test, config["eval_batch_size"])
    ranking = time.perf_counter() - began
    line = {}
    for split, found in (("valid", metrics(learnt.ranks)), ("test", metrics(ranks))):
        line |= {f"{split} {metric}": found[metric] for metric in ("ndcg@10", "recall@10")}
    line |= {"train s": seconds + learning, "rank s/1000 users": 1000 * ranking / len(ranks)}
    return line | {
        f"weight of {view}": float(weight) for view, weight in zip(VIEWS, model.network.deliberation.weights)
    }
