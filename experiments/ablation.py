"""What each view is worth.

Takes the checkpoint with which a run ended its deliberation, leaves one view out after another (or all but some), fits
the other weights anew on the validation users and ranks the test users. The candidates stay those that all views find
with the weights before the fit. A view alone needs no weight; beside "seen" it ranks what the user does not have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from experiments.runs import load, metrics
from recbole_stream.model.deliberation import LEAST, VIEWS
from recbole_stream.training.deliberate import collect_views
from recbole_stream.training.weigh import fit_weights, ranks_among

__all__ = ["ablate"]

ALONE = [("generation", "seen"), ("state", "seen"), ("memory", "seen"), ("content", "seen"), ("generation",), ("state",)]
_NEVER = -1e6


def ablate(run: Path, seed: int) -> pd.DataFrame:
    """One line for each choice of views: NDCG@10 and Recall@10 on validation and test, and the weights.

    Raises:
        InputError: the run has no checkpoint of a deliberation with this seed.
    """
    loaded = load(run, f"STREAMRec-seed{seed}-Deliberation")
    model = loaded.model
    slow = model.network.deliberation
    slow.weights.copy_(slow.first_weights())  # of those fitted, generation's may be 0: nothing would be generated
    collected = [
        collect_views(
            model.network, samples, torch.arange(len(samples)), model.trie, model.beams, model.candidates, show_progress=True
        )
        for samples in (loaded.valid, loaded.test)
    ]
    available = [view for view, used in zip(VIEWS, slow.used) if used]
    choices = [tuple(available), *(tuple(v for v in available if v != off) for off in available)]
    choices += [choice for choice in ALONE if set(choice) <= set(available)]
    lines = []
    for choice in dict.fromkeys(choices):
        items, views, targets = collected[0]
        hits = items == targets[:, None]
        some = hits.any(1)
        used = tuple(view in choice for view in VIEWS)
        if sum(used[:-1]) == 1:  # what others found is no fair sample to weigh it on
            weights = np.zeros(views.shape[-1])
            weights[: len(VIEWS)] = np.where(used, [1.0, 1.0, 1.0, 1.0, _NEVER], 0.0)
        else:
            weights = fit_weights(views[some], hits[some].argmax(1), items[some] > 0, used, LEAST)
        line: dict[str, object] = {"views": " + ".join(choice)}
        for name, (items, views, targets) in zip(("valid", "test"), collected):
            found = metrics(ranks_among(np.where(items > 0, views @ weights, -np.inf), items == targets[:, None]))
            line |= {f"{name} {metric}": found[metric] for metric in ("ndcg@10", "recall@10")}
        lines.append(line | {f"weight of {view}": weight for view, weight in zip(VIEWS, weights)})
    return pd.DataFrame(lines)
