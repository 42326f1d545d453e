"""What was asked for is what is shown: columns, tests and plots of a run by its metrics, cut-offs and selection."""

import pytest
from recbole.evaluator.register import metrics_dict, smaller_metrics

from recbole_stream.reporting.metrics import (
    binned_metric,
    compared_metrics,
    main_metric,
    metric_title,
    shown_metrics,
    smaller_is_better,
)
from recbole_stream.reporting.results import Row


def row(test, valid_metric=None, valid=()):
    run = {} if valid_metric is None else {"configuration": {"valid_metric": valid_metric}}
    return Row("A", "", "d", 1, dict.fromkeys(valid, 0.1), dict.fromkeys(test, 0.2), 1.0, 1.0, 7, run=run)


def test_every_metric_of_recbole_is_written_as_recbole_writes_it():
    assert [metric_title(name) for name in metrics_dict] == [kind.__name__ for kind in metrics_dict.values()]
    assert metric_title("NDCG@10") == metric_title("ndcg@10") == "NDCG@10"
    assert metric_title("new@3") == "new@3"


def test_the_direction_of_every_metric_is_recboles():
    assert [name for name in metrics_dict if smaller_is_better(name)] == smaller_metrics
    assert smaller_is_better("GiniIndex@10") and not smaller_is_better("ndcg@10")


DEFAULT = ["recall@5", "recall@10", "ndcg@5", "ndcg@10"]


@pytest.mark.parametrize(
    ("rows", "columns", "main", "tested", "binned"),
    [
        # the defaults of a run, and a row that does not say what chose its epochs
        ([row(DEFAULT, "NDCG@10", DEFAULT)], [*DEFAULT, "valid ndcg@10"], "ndcg@10", ["ndcg@10", "recall@10"], "recall@10"),
        ([row(DEFAULT, None, DEFAULT)], [*DEFAULT, "valid ndcg@10"], "ndcg@10", ["ndcg@10", "recall@10"], "recall@10"),
        ([row(["mrr@20", "hit@20"], "MRR@20", ["mrr@20", "hit@20"])], ["mrr@20", "hit@20", "valid mrr@20"], "mrr@20",
         ["mrr@20", "hit@20"], "hit@20"),
        # hit, recall and precision are one test, as are mrr and map; bins prefer shares of users
        ([row(["precision@5", "hit@5", "map@5", "mrr@5", "recall@5"], "map@5")],
         ["precision@5", "hit@5", "map@5", "mrr@5", "recall@5"], "map@5", ["map@5", "precision@5"], "hit@5"),
        ([row(["ndcg@1", "ndcg@3"], "ndcg@1")], ["ndcg@1", "ndcg@3"], "ndcg@1", ["ndcg@1"], "ndcg@1"),
        # what chose the epochs does not follow from ranks: the largest cut-off
        ([row(["gauc", "recall@5", "recall@20"], "GAUC", ["gauc"])], ["gauc", "recall@5", "recall@20", "valid gauc"], "gauc",
         ["recall@20"], "recall@20"),
        ([row(["gauc", "itemcoverage@10"], "GAUC")], ["gauc", "itemcoverage@10"], "gauc", [], None),
        # runs that were asked for different metrics
        ([row(["mrr@5"], "MRR@5", ["mrr@5"]), row(["ndcg@10"], "NDCG@10", ["ndcg@10"])],
         ["mrr@5", "ndcg@10", "valid mrr@5", "valid ndcg@10"], "mrr@5", ["mrr@5"], "mrr@5"),
        ([row([])], [], None, [], None),
    ],
)  # fmt: skip
def test_what_a_run_was_asked_for_is_shown(rows, columns, main, tested, binned):
    assert [name if split == "test" else f"{split} {name}" for split, name in shown_metrics(rows)] == columns
    assert (main_metric(rows), compared_metrics(rows), binned_metric(rows)) == (main, tested, binned)
