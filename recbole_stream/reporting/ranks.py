"""Ranks: the place of the target of every test row, from which metrics and tests follow without a model.

A run keeps one Parquet file for each trained model, stage and seed, ``ranks/<Model>[-<STAGE>]-seed<SEED>.parquet``,
with one line per test row, which is a history of a user and the item that came next. Leave-one-out makes one row of each
user, a split by ratio several:

=================  ======  =========================================================================
``user``           str     RecBole's token
``target``         str     token of the item that the user took next
``history_length`` int     earlier interactions of the user, also those beyond MAX_ITEM_LIST_LENGTH
``popularity``     int     training events of the target
``rank``           Int32   1 is best; null where the model did not rank the target
=================  ======  =========================================================================

The frame's ``attrs["depth"]``, which the file keeps, says how far down ranks are known: a null rank is a place below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_stream.errors import InputError
from recbole_stream.files import whole_file

__all__ = [
    "METRICS",
    "follows_from_ranks",
    "mean_metric",
    "ranks_file",
    "read_ranks",
    "row_metric",
    "split_metric",
    "user_means",
    "write_ranks",
]

RANKS_FOLDER = "ranks"
COLUMNS = ["user", "target", "history_length", "popularity", "rank"]
METRICS = ("recall", "hit", "ndcg", "mrr", "map", "precision")


def ranks_file(folder: str | Path, model: str, stage: str, seed: int) -> Path:
    """Where a run's folder keeps the ranks of a row of its results."""
    return Path(folder) / RANKS_FOLDER / f"{model}{'-' + stage if stage else ''}-seed{seed}.parquet"


def write_ranks(path: str | Path, rows: pd.DataFrame, ranks: np.ndarray, depth: int) -> None:
    """Write ranks so that a reader sees the old file or the whole new one; the folder is made where it is missing.

    Args:
        path: from :func:`ranks_file`.
        rows: the columns above but for the last, N test rows.
        ranks: [N], 0 where the target was not ranked.
        depth: how far down ranks are known.
    """
    frame = rows.assign(rank=pd.array(np.where(ranks > 0, ranks, None), dtype="Int32"))[COLUMNS]
    frame.attrs["depth"] = int(depth)
    with whole_file(path) as file:
        frame.to_parquet(file, engine="pyarrow", index=False)


def read_ranks(folder: str | Path, model: str, stage: str, seed: int) -> pd.DataFrame:
    """The ranks of a row of a run's results.

    Raises:
        InputError: the file is missing, torn, or no file of ranks.
    """
    path = ranks_file(folder, model, stage, seed)
    if not path.is_file():
        raise InputError(f"There is no {path}: train {model} again, its run kept no ranks.")
    try:
        ranks = pd.read_parquet(path, engine="pyarrow", columns=COLUMNS)
        depth = int(ranks.attrs["depth"])
    except Exception as fault:  # pyarrow raises many kinds for a torn file
        raise InputError(f"{path} is torn or holds no ranks: train {model} again.") from fault
    ranks.attrs["depth"] = depth
    return ranks


def split_metric(metric: str) -> tuple[str, int]:
    """``ndcg@10`` -> ("ndcg", 10), in any case.

    Raises:
        InputError: no such metric follows from ranks.
    """
    name, _, cutoff = metric.strip().lower().partition("@")
    if not follows_from_ranks(metric):
        raise InputError(f"{metric!r} does not follow from ranks: name one of {', '.join(METRICS)} as in ndcg@10.")
    return name, int(cutoff)


def follows_from_ranks(metric: str) -> bool:
    """Whether :func:`row_metric` knows the metric."""
    name, _, cutoff = metric.strip().lower().partition("@")
    return name in METRICS and cutoff.isdecimal() and int(cutoff) >= 1


def row_metric(ranks: pd.Series | Sequence[int | None], metric: str, depth: int | None = None) -> np.ndarray:
    """The metric of each test row, which has one target.

    With the target at rank r: recall and hit are 1 where r <= k, ndcg is 1 / log2(r + 1) (the ideal gain is 1),
    mrr and map are 1 / r and precision 1 / k; beyond k all are 0.

    Args:
        ranks: [N], 1 is best, null (None, nan, NA) or 0 where the target was not ranked.
        metric: such as ``ndcg@10``.
        depth: how far down ranks are known; no limit where None.

    Returns:
        [N] in float64.

    Raises:
        InputError: no such metric, or its cut-off lies below ``depth``.
    """
    name, k = split_metric(metric)
    if depth is not None and k > depth:
        raise InputError(
            f"Ranks are known down to {depth}, too few for {metric}: train with --topk=[{k}] to keep more."
        )
    places = pd.array(ranks, dtype="Int32").to_numpy(dtype=np.int64, na_value=0)
    hit = (places >= 1) & (places <= k)
    values = np.zeros(len(places))
    found = places[hit].astype(np.float64)
    if name == "ndcg":
        values[hit] = 1.0 / np.log2(found + 1)
    elif name in ("mrr", "map"):
        values[hit] = 1.0 / found
    else:
        values[hit] = 1.0 / k if name == "precision" else 1.0
    return values


def mean_metric(values: np.ndarray) -> np.float64:
    """The mean over test rows, to the last bit as RecBole's evaluator gives it before it rounds.

    RecBole averages columns of a [rows, k] matrix, which numpy adds row after row; a vector it would add pairwise.
    The result is numpy's, so that ``round`` rounds it as it rounds RecBole's.
    """
    return np.cumsum(values)[-1] / len(values)


def user_means(values: np.ndarray, users: pd.Series | Sequence[str]) -> pd.Series:
    """The mean over each user's test rows, by user.

    Users are the units of all counts, intervals and tests here: the rows of one user are alike, and as so many
    independent ones they would make intervals too narrow.

    Args:
        values: of the rows [N].
        users: of the rows [N].

    Returns:
        [U], its index the users in ascending order.
    """
    return pd.Series(values).groupby(np.asarray(users)).mean()
