"""What is left out of RecBole's baselines changes nothing: RecBole's files, read anew without the repairs, beside ours."""

import importlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed

from recbole_stream.host.repairs.cost import FEWEST, in_groups, length_groups
from speed.baselines import stock_class

KEYS = {
    "dataset": "tiny", "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "train_neg_sample_args": None,
    "loss_type": "CE", "hidden_size": 8, "inner_size": 16, "embedding_size": 8, "MAX_ITEM_LIST_LENGTH": 20, "use_gpu": False,
    "mask_ratio": 0.5, "train_batch_size": 1024,
}  # fmt: skip


@pytest.fixture(params=["SASRec", "GRU4Rec", "BERT4Rec", "Caser"])
def pair(request, tiny_ml100k):
    """Ours, stock with the same weights, a training batch and one of validation, with histories of 1 to 20 items."""
    config = Config(model=request.param, config_dict=KEYS | {"data_path": tiny_ml100k})
    init_seed(1, True)
    train, valid, _ = data_preparation(config, create_dataset(config))
    module = importlib.import_module(f"recbole.model.sequential_recommender.{request.param.lower()}")
    ours = getattr(module, request.param)(config, train.dataset)
    stock = stock_class(request.param)(config, train.dataset)
    stock.load_state_dict(ours.state_dict())
    return ours.eval(), stock.eval(), next(iter(train)), next(iter(valid))[0]


def test_losses_gradients_and_scores_are_those_of_stock_recbole(pair):
    ours, stock, batch, users = pair
    lengths = batch["item_length"]
    assert len(list(length_groups(lengths, 20))) > 2, "a batch of one group would show nothing"
    losses = [model.calculate_loss(batch) for model in (ours, stock)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, mine), theirs in zip(ours.named_parameters(), stock.parameters(), strict=True):
        assert (mine.grad is None) == (theirs.grad is None), name
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-6, msg=name)
    torch.testing.assert_close(ours.full_sort_predict(users), stock.full_sort_predict(users), rtol=1e-4, atol=1e-6)


def test_padding_is_not_computed(monkeypatch):
    seen = []
    lengths = torch.tensor([3] * FEWEST + [20] * FEWEST)
    items = (torch.arange(20) < lengths[:, None]).long()
    in_groups(lambda rows, _: seen.append(rows.shape) or rows.sum(1), items, lengths)
    assert seen == [(FEWEST, 4), (FEWEST, 20)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=400), st.integers(1, 20))
def test_every_row_is_in_one_group_that_holds_it(lengths, longest):
    lengths = torch.tensor(lengths)
    groups = list(length_groups(lengths, longest))
    rows = torch.cat([rows for rows, _ in groups])
    assert rows.sort().values.tolist() == list(range(len(lengths)))
    for rows, width in groups:
        assert width <= longest
        assert (lengths[rows].clamp(max=longest) <= width).all()
    assert all(len(rows) >= FEWEST for rows, _ in groups[:-1])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=300))
def test_rows_come_back_in_their_order(lengths):
    lengths = torch.tensor(lengths)
    items = torch.arange(1, 10) * (torch.arange(9) < lengths[:, None])
    sums = in_groups(lambda rows, _: rows.sum(1), items, lengths)
    assert sums.tolist() == (lengths * (lengths + 1) // 2).tolist()
