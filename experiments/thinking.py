"""What each further look at a history buys: accuracy on test users against CPU milliseconds a user, on one thread.

Takes the checkpoint with which a run ended its deliberation and adds part after part, each time learning the weights (and
at the end the verifier) again on the validation users. Two ways: looking things up alone, and from the matching tower's
states over each view to the verifier. Where the run has trained what generates, writing alone and deliberation with what
is written are two further points; the view `likelihood` then keeps a weight whether it helps or not.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import torch

from experiments.ablation import relearn
from experiments.runs import Loaded, load, metrics, rank_targets
from recbole_stream.model.deliberation import RANKINGS, VIEWS
from recbole_stream.reporting.plots import plot_thinking

__all__ = ["think"]

LOOK_UPS = {"text": ["text"], "transitions": ["transitions"], "both": ["text", "transitions"]}


def think(run: Path, seed: int) -> pd.DataFrame:
    """One line a point: series, parts, milliseconds a user, NDCG@10 with its standard error over users, Recall@10.

    Milliseconds are those of the processor, so that other programs on the machine count little. The plot goes into the
    run's folder.

    Raises:
        InputError: the run has no checkpoint of a deliberation with this seed.
    """
    loaded = load(run, f"STREAMRec-seed{seed}-Deliberation")
    slow = loaded.model.network.deliberation
    views = [view for view, used in zip(VIEWS, slow.used) if used]
    lines, grown, writes, pointed = [], ["matching"], "likelihood" in views, slow.pointer is not None

    def add(series: str, parts: str, views: Collection[str], verified: bool = False, pointed: bool = False) -> None:
        relearn(loaded, slow, views, verified, pointed, keep_likelihood=True)
        lines.append({"series": series, "parts": parts} | _measure(loaded))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for parts, looked in LOOK_UPS.items():
            if set(looked) <= set(views):
                add("looking up", parts, {*looked, "repeats"} & set(views))
        if "matching" in views:
            slow.ranking.fill_(RANKINGS.index("states"))
            lines.append({"series": "states and views", "parts": "States"} | _measure(loaded, slow))
            for view in views[views.index("matching") + 1 :]:
                grown.append(view)
                add("states and views", f"+ {view}", grown)
        if slow.verifier is not None:
            looked = [view for view in views if view != "likelihood"]
            add("states and views", "+ verifier", looked, verified=True)
            if pointed:
                add("states and views", "+ pointer", looked, verified=True, pointed=True)
        if writes:
            add("states and views", "+ likelihood", views, slow.verifier is not None, pointed)
            slow.ranking.fill_(RANKINGS.index("likelihood"))
            lines.append({"series": "writing", "parts": "likelihood alone"} | _measure(loaded, slow))
    finally:
        torch.set_num_threads(threads)
    table = pd.DataFrame(lines)
    plot_thinking(table).savefig(run / f"thinking-seed{seed}.png", dpi=150)
    return table


def _measure(loaded: Loaded, slow: torch.nn.Module | None = None) -> dict[str, float]:
    """A point, of the model as it is or with another deliberation."""
    if slow is not None:
        loaded.model.network.deliberation = slow
    began = time.process_time()
    ranks = rank_targets(loaded.model, loaded.test, loaded.config["eval_batch_size"])
    spent = time.process_time() - began
    return {"ms a user": 1000 * spent / len(ranks), **metrics(ranks)}
