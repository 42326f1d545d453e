"""Training steps of RecBole's models: its own files beside the same files with this project's repairs."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation

import recbole_stream  # noqa: F401 - without its repairs RecBole does not run on today's packages
from speed.harness import alternate, report

__all__ = ["FULL", "TINY_SIZES", "Sizes", "run", "stock_class"]

MODELS = ("SASRec", "GRU4Rec", "BERT4Rec", "Caser")


@dataclass(frozen=True)
class Sizes:
    """Batches a call, calls a side, and the keys of all models."""

    batches: int = 3
    rounds: int = 3
    keys: dict[str, Any] = field(
        default_factory=lambda: {"hidden_size": 128, "embedding_size": 64, "mask_ratio": 0.2, "train_batch_size": 2048}
    )


FULL = Sizes()
TINY_SIZES = Sizes(
    1,
    1,
    {
        "hidden_size": 8,
        "embedding_size": 8,
        "inner_size": 8,
        "mask_ratio": 0.2,
        "train_batch_size": 64,
        "user_inter_num_interval": "[400,inf)",
    },
)


def run(
    sizes: Sizes, data_path: str | None, dataset: str, cache_dir: str | None, file: str | None
) -> dict[str, object]:
    """The same batches by both; ``ratio`` is RecBole's seconds over ours for SASRec.

    Args:
        sizes: what is run.
        data_path, dataset: folder and name of atomic files; RecBole's own ml-100k where they are absent.
        cache_dir: not used.
        file: where the result is written.
    """
    times: dict[str, list[float]] = {}
    figures: dict[str, object] = {}
    for model in MODELS:
        keys = sizes.keys | {
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None, "loss_type": "CE",
            "MAX_ITEM_LIST_LENGTH": 20, "use_gpu": False, "seed": 2020,
        }  # fmt: skip
        present = data_path and (Path(data_path) / dataset / f"{dataset}.inter").is_file()
        keys |= {"data_path": data_path, "dataset": dataset} if present else {"dataset": "ml-100k"}
        with mock.patch.object(sys, "argv", sys.argv[:1]):  # RecBole reads the command line
            config = Config(model=model, config_dict=keys)
        train = data_preparation(config, create_dataset(config))[0]
        batches = list(itertools.islice(iter(train), sizes.batches))
        module = importlib.import_module(f"recbole.model.sequential_recommender.{model.lower()}")
        both = {"ours": getattr(module, model), "recbole": stock_class(model)}
        both_times = alternate(
            {side: _steps(kind(config, train.dataset), batches) for side, kind in both.items()}, sizes.rounds
        )
        times |= {f"{side}_{model}": values for side, values in both_times.items()}
        median = {side: statistics.median(values) for side, values in both_times.items()}
        figures[f"recbole_over_ours_{model}"] = median["recbole"] / median["ours"]
        lengths = torch.cat([batch["item_length"] for batch in batches]).float()
        figures |= {"items_of_history": float(lengths.mean()), "rows": len(lengths), "data": config["dataset"]}
    return report("baselines", figures["recbole_over_ours_SASRec"], figures, times, asdict(sizes), file)


def stock_class(model: str) -> type:
    """The class as RecBole's file has it, read anew: what the repairs changed in place is not in it."""
    spec = importlib.util.find_spec(f"recbole.model.sequential_recommender.{model.lower()}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, model)


def _steps(model: torch.nn.Module, batches: list[Any]) -> Callable[[], None]:
    """One optimiser step a batch, as RecBole's trainer takes it."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()

    def work() -> None:
        for batch in batches:
            optimizer.zero_grad()
            model.calculate_loss(batch).backward()
            optimizer.step()

    return work
