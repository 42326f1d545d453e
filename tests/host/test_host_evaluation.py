"""What RecBole's metrics are computed from: against values by hand, and against RecBole's own collector."""

import torch
from recbole.evaluator.collector import Collector
from recbole.evaluator.metrics import GAUC

from recbole_stream.host.evaluation import hits_of, mean_ranks


def test_hits_by_hand():
    lists = torch.tensor([[4, 2, 7], [1, 0, 0], [3, 5, 6]])
    assert hits_of(lists, torch.tensor([2, 1, 9])).tolist() == [[0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]]


def test_mean_ranks_by_hand():
    out = -torch.inf
    scores = torch.tensor([[out, 3.0, 1.0, 2.0], [out, 2.0, 2.0, 2.0], [out, 1.0, out, 2.0]])
    # the first item of three; one of three equals, in the middle of places 1 to 3; the second of two that are ranked
    assert mean_ranks(scores, torch.tensor([1, 3, 1])).tolist() == [[1, 3, 1], [2, 3, 1], [2, 2, 1]]


def test_mean_ranks_and_gauc_equal_recboles():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 40, (50, 61), generator=generator).float()  # with many ties
    scores[:, 0] = -torch.inf
    scores[:25].scatter_(1, torch.randint(1, 61, (25, 5), generator=generator), -torch.inf)  # left out
    targets = torch.tensor(
        [int(row.argmax()) if number % 3 else int((row > -1).nonzero()[-1]) for number, row in enumerate(scores)]
    )
    config = {
        "metrics": ["GAUC"],
        "topk": [5],
        "device": "cpu",
        "metric_decimal_place": 9,
        "eval_args": {"mode": "full"},
    }
    collector = Collector(config)
    collector.eval_batch_collect(scores, None, torch.arange(50), targets)
    struct = collector.get_data_struct()
    assert torch.equal(mean_ranks(scores, targets), struct.get("rec.meanrank").double())
    theirs = GAUC(config).calculate_metric(struct)["gauc"]
    struct.set("rec.meanrank", mean_ranks(scores, targets))
    assert abs(GAUC(config).calculate_metric(struct)["gauc"] - theirs) < 1e-6
