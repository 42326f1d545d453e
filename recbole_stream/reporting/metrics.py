"""The metrics of a run: how they are written, which way is better, and which of them its tables, tests and plots show.

Metrics bear RecBole's names in results, such as "ndcg@10" and "gauc". A row's ``test`` and ``valid`` hold those that
were asked for (the keys ``metrics`` and ``topk``); ``valid_metric`` chose the epochs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from recbole_stream.reporting.ranks import follows_from_ranks
from recbole_stream.reporting.results import Row

__all__ = [
    "binned_metric",
    "main_metric",
    "metric_title",
    "shown_metrics",
    "smaller_is_better",
    "compared_metrics",
    "valid_metric",
]

_TITLES = {
    title.lower(): title
    for title in (
        "Recall", "Hit", "NDCG", "MRR", "MAP", "Precision", "GAUC", "AUC", "MAE", "RMSE", "LogLoss", "ItemCoverage",
        "AveragePopularity", "ShannonEntropy", "GiniIndex", "TailPercentage",
    )
}  # fmt: skip
_SMALLER = ("averagepopularity", "giniindex", "logloss", "mae", "rmse")
# metrics that are equal, or equal but for a factor, where a row has one target: a test of one is a test of all
_EQUAL = {"hit": "recall", "precision": "recall", "map": "mrr"}


def metric_title(metric: str) -> str:
    """ "ndcg@10" as papers write it: "NDCG@10"."""
    name, at, cutoff = metric.lower().partition("@")
    return _TITLES.get(name, name) + at + cutoff


def smaller_is_better(metric: str) -> bool:
    """Whether less of a metric is better, as RecBole has it."""
    return metric.lower().partition("@")[0] in _SMALLER


def valid_metric(row: Row) -> str:
    """The metric that chose the row's epoch; NDCG@10 where the row does not say."""
    return str((row.run.get("configuration") or {}).get("valid_metric", "ndcg@10")).lower()


def shown_metrics(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """The columns of a table of rows: (split, metric), each once.

    Those are all metrics of the test split in the order in which they were asked for, and on the validation split the
    metrics that chose the epochs.
    """
    tested = [("test", name) for row in rows for name in row.test]
    chosen = [("valid", valid_metric(row)) for row in rows]
    measured = {name for row in rows for name in row.valid}
    return _distinct([*tested, *(column for column in chosen if column[1] in measured)])


def main_metric(rows: Sequence[Row]) -> str | None:
    """The test metric that stands for all: the one that chose the epochs, or else the first; None without any."""
    names = _distinct(name for row in rows for name in row.test)
    return next((name for name in [*map(valid_metric, rows), *names] if name in names), None)


def compared_metrics(rows: Sequence[Row]) -> list[str]:
    """The metrics by which models are compared user by user, the one that chose the epochs first.

    Those are the metrics of the test split that follow from ranks, at the cut-off of the one that chose the epochs, or
    where that one has none at the largest. Of metrics that are equal but for a factor the first is taken: another test
    of the same would only raise the corrected p-values.
    """
    kinds: dict[str, str] = {}
    for name in _ranked_metrics(rows):
        kind = name.partition("@")[0]
        kinds.setdefault(_EQUAL.get(kind, kind), name)
    return list(kinds.values())


def binned_metric(rows: Sequence[Row]) -> str | None:
    """The metric that is shown by history length and popularity: of :func:`compared_metrics` the share of hits.

    Another one takes its place where nobody asked for recall or hit; None where no metric follows from ranks.
    """
    names = _ranked_metrics(rows)
    hits = [name for name in names if name.startswith(("recall@", "hit@"))]
    return next(iter([*hits, *names]), None)


def _ranked_metrics(rows: Sequence[Row]) -> list[str]:
    """Metrics of the test split that follow from ranks, all at one cut-off, the one that chose the epochs first."""
    names = [name for name in _distinct(name for row in rows for name in row.test) if follows_from_ranks(name)]
    first = [name for name in map(valid_metric, rows) if name in names][:1]
    cutoffs = [int(name.partition("@")[2]) for name in first or names]
    return _distinct(name for name in [*first, *names] if int(name.partition("@")[2]) == max(cutoffs))


def _distinct(values: Iterable) -> list:
    return list(dict.fromkeys(values))
