"""What each view is worth: ``python experiments/ablation.py RUN [--seed=2020]``.

Takes the checkpoint with which a run of ``run_recbole.py --model=STREAMRec`` ended its deliberation, leaves one view
out after another (or all but some), fits the other weights anew on the validation users and ranks the test users. The
candidates stay those of the whole model. Writes ``ablation-seed<S>.md`` and ``.csv`` into the run's folder.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import recbole_stream  # noqa: F401  registers the models
from recbole.quick_start import load_data_and_model
from recbole_stream.benchmark.results import write_atomically
from recbole_stream.errors import InputError
from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.model.deliberation import VIEWS
from recbole_stream.training.deliberate import collect_views, fit_weights

ALONE = [("generation", "seen"), ("state", "seen"), ("memory", "seen"), ("content", "seen"), ("generation",), ("state",)]
TOP = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("--seed", type=int, default=2020)
    options = parser.parse_args()
    file = options.run / "checkpoints" / f"STREAMRec-seed{options.seed}-Deliberation.pth"
    try:
        if not file.is_file():
            raise InputError(f"{file} does not exist: name the folder of a run of STREAMRec with this seed.")
        table = ablate(file)
    except InputError as fault:
        print(f"Error: {fault}", file=sys.stderr)
        return 2
    write_atomically(options.run / f"ablation-seed{options.seed}.csv", table.to_csv(index=False))
    text = table.to_markdown(index=False, floatfmt=".4f")
    write_atomically(options.run / f"ablation-seed{options.seed}.md", text + "\n")
    print(text)
    return 0


def ablate(file: Path) -> pd.DataFrame:
    """One line for each choice of views: weights, and NDCG@10 and Recall@10 on validation and test."""
    with quiet_argv():
        _, model, _, _, *splits = load_data_and_model(str(file))
    model.eval()
    collected = []
    for split in splits:
        samples = samples_of(split._dataset).to(model.device)
        rows = torch.arange(len(samples))
        collected.append(
            collect_views(model.network, samples, rows, model.trie, model.beams, model.candidates, show_progress=True)
        )
    available = [view for view, used in zip(VIEWS, model.network.deliberation.used) if used]
    choices = [tuple(available), *(tuple(v for v in available if v != off) for off in available)]
    choices += [choice for choice in ALONE if set(choice) <= set(available)]
    lines = []
    for choice in dict.fromkeys(choices):
        items, views, targets = collected[0]
        hits = items == targets[:, None]
        some = hits.any(1)
        used = tuple(view in choice for view in VIEWS)
        weights = fit_weights(views[some], hits[some].argmax(1), items[some] > 0, used)
        line = {"views": " + ".join(choice)}
        for name, (items, views, targets) in zip(("valid", "test"), collected):
            ranks = _ranks(np.where(items > 0, views @ weights, -np.inf), items == targets[:, None])
            line[f"{name} ndcg@10"] = np.where(ranks <= TOP, 1 / np.log2(ranks + 1), 0).mean()
            line[f"{name} recall@10"] = (ranks <= TOP).mean()
        lines.append(line | {f"weight of {view}": weight for view, weight in zip(VIEWS, weights)})
    return pd.DataFrame(lines)


def _ranks(scores: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Rank of the target among the candidates, from 1; ties count against it; infinite where it is none of them."""
    own = np.where(hits, scores, -np.inf).max(1, keepdims=True)
    return np.where(hits.any(1), (scores >= own).sum(1), np.inf)


if __name__ == "__main__":
    sys.exit(main())
