"""Histories read from the events: the rows, splits and batches that RecBole writes out, bit for bit."""

import pickle

import pytest
import torch
from recbole.data import data_preparation

from recbole_stream.host import dataset as dataset_module
from recbole_stream.host.dataset import SemanticIDDataset, samples_of
from recbole_stream.host.models import transitions_of
from recbole_stream.host.rows import PrefixRows
from recbole_stream.host.run.job import configure
from tests.cases import write_case

RATIO = {"split": {"RS": [8, 1, 1]}, "order": "TO", "group_by": "user", "mode": "full"}


class WithoutText(SemanticIDDataset):
    def _attach_items(self):
        """No text is read here."""


@pytest.fixture
def loaders(tmp_path, monkeypatch):
    data_path = write_case(tmp_path, "toy")

    def loaded(stock=False, **options):
        options = {"data_path": data_path, "text_fields": ["title"], "MAX_ITEM_LIST_LENGTH": 4, **options}
        with monkeypatch.context() as patch:
            if stock:
                patch.setattr(dataset_module, "prefix_rows", lambda dataset: None)
            options = {"use_gpu": False, "show_progress": False, **options}
            config = configure("TIGER", ["TIGER"], "toy", options, tmp_path)
            return data_preparation(config, WithoutText(config))

    return loaded


@pytest.mark.parametrize("options", [{}, {"leave_out_seen": True}, {"eval_args": RATIO}])
def test_samples_and_batches_are_those_of_recboles_rows(loaders, options):
    ours, stock = loaders(**options), loaders(stock=True, **options)
    for one, other in zip(ours, stock):
        assert isinstance(one._dataset.inter_feat, PrefixRows)
        assert not isinstance(other._dataset.inter_feat, PrefixRows)
        some, all_rows = samples_of(one._dataset), samples_of(other._dataset)
        assert torch.equal(some.targets, all_rows.targets) and torch.equal(some.lengths, all_rows.lengths)
        assert torch.equal(some.histories.to_dense(), all_rows.histories)
        for rows in some.shuffled(16, 1):
            assert torch.equal(some.batch(rows).histories, all_rows.batch(rows).histories)
        rows, dense = one._dataset.inter_feat.to_dense(), other._dataset.inter_feat
        assert set(rows.columns) == set(dense.columns)
        for name in rows.columns:
            assert rows[name].dtype == dense[name].dtype and torch.equal(rows[name], dense[name])
    # what RecBole's own loader makes of both
    torch.manual_seed(0)
    batches = list(ours[0])
    torch.manual_seed(0)
    for one, other in zip(batches, stock[0], strict=True):
        assert set(one.columns) == set(other.columns)
        assert all(torch.equal(one[name], other[name]) for name in one.columns)


def test_transitions_are_those_of_recboles_rows(loaders):
    one, other = (loaders(stock=stock)[0]._dataset for stock in (False, True))
    keys = {"lookup_window": 3, "lookup_decay": 0.8, "lookup_backward": 0.5, "lookup_recency": 0.7}
    keys["lookup_neighbours"] = 5
    counted = [transitions_of(keys, samples_of(data), data.item_num) for data in (one, other)]
    assert all(torch.equal(*pair) for pair in zip(*(lookup.pairs() for lookup in counted)))


def test_a_data_set_is_kept_and_read_again(loaders):
    dataset = loaders()[2]._dataset
    again = pickle.loads(pickle.dumps(dataset.inter_feat))
    assert torch.equal(again["item_id_list"].to_dense(), dataset.inter_feat["item_id_list"].to_dense())
    assert "item_id_list" in again and "item_id" in again and "rating" not in again
    assert torch.equal(again[[2, 0]]["item_id_list"].to_dense(), again["item_id_list"][[2, 0]])


def test_events_with_numbers_to_normalise_are_left_to_recbole(loaders):
    train = loaders(numerical_features=["timestamp"])[0]
    assert train._dataset.inter_feat["timestamp_list"].shape[1:] == (4, 2)
