"""What each model of a run would be worth if it left out what the user has already.

Deliberation learns from the validation users that most sets have no repeats; other models are never told. Here every
checkpoint of the run, whatever the model, ranks once as it was trained and once without all that the user had before.
The checkpoints stay those that validation chose without the rule: `--leave_out_seen=True` trains and chooses with it.
"""

from __future__ import annotations

from pathlib import Path

import recbole_stream  # noqa: F401  registers the models; without Ray, quick_start imports only after this

# isort: split
import pandas as pd
from recbole.utils import get_trainer

from recbole_stream.errors import InputError
from recbole_stream.host.checkpoints import load
from recbole_stream.host.configuration import quiet_argv

__all__ = ["leave_out"]


def leave_out(run: Path, seed: int) -> pd.DataFrame:
    """One line a checkpoint: NDCG@10 and Recall@10 on validation and test, as trained and without repeats.

    Raises:
        InputError: the run has no checkpoint with this seed.
    """
    files = sorted((run / "checkpoints").glob(f"*-seed{seed}*.pth"))
    if not files:
        raise InputError(
            f"{run / 'checkpoints'} has no checkpoint of seed {seed}: name the folder of a run and its seed."
        )
    lines = []
    for file in files:
        with quiet_argv():
            config, model, _, train, *splits = load(file, leave_out_seen=True)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        trainer.eval_collector.data_collect(train)
        name, stage = file.stem.split(f"-seed{seed}", 1)
        line: dict[str, object] = {
            "model": name if stage == f"-{name}" else name + stage
        }  # one stage: the model's name
        for rule in ("as trained", "unseen only"):
            config["leave_out_seen"] = rule == "unseen only"
            for split, data in zip(("valid", "test"), splits):
                found = trainer.evaluate(data, load_best_model=False)
                line |= {f"{split} {metric}, {rule}": found[metric] for metric in ("ndcg@10", "recall@10")}
        lines.append(line)
    return pd.DataFrame(lines)
