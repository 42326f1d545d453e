"""Augmentation without RecBole's loop: the same rows, splits and batches, bit for bit."""

import pickle

import pytest
import torch
from recbole.data import data_preparation
from recbole.data.dataset import SequentialDataset

from recbole_stream.host import seen
from recbole_stream.host.dataset import SemanticIDDataset, samples_of
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

    def loaded(kind, model, stock=False, **options):
        options = {"data_path": data_path, "text_fields": ["title"], "MAX_ITEM_LIST_LENGTH": 4, **options}
        with monkeypatch.context() as patch:
            if stock:
                patch.setattr(seen, "augment_rows", lambda dataset, written_out: False)
            config = configure(model, [model], "toy", {"use_gpu": False, "show_progress": False, **options}, tmp_path)
            return data_preparation(config, kind(config))

    return loaded


@pytest.mark.parametrize("options", [{}, {"leave_out_seen": True}, {"eval_args": RATIO}])
def test_recboles_models_get_the_rows_that_recbole_makes(loaders, options):
    ours = loaders(SequentialDataset, "SASRec", **options)
    stock = loaders(SequentialDataset, "SASRec", stock=True, **options)
    for one, other in zip(ours, stock):
        one, other = one._dataset.inter_feat, other._dataset.inter_feat
        assert one.columns == other.columns
        for name in one.columns:
            assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name])


@pytest.mark.parametrize("options", [{}, {"leave_out_seen": True}])
def test_our_models_read_the_same_histories_from_the_events(loaders, options):
    ours, stock = (loaders(WithoutText, "TIGER", stock=stock, **options) for stock in (False, True))
    for one, other in zip(ours, stock):
        assert isinstance(one._dataset.inter_feat, PrefixRows)
        assert not isinstance(other._dataset.inter_feat, PrefixRows)
        some, all_rows = samples_of(one._dataset), samples_of(other._dataset)
        assert torch.equal(some.targets, all_rows.targets) and torch.equal(some.lengths, all_rows.lengths)
        assert torch.equal(some.histories[:, :], all_rows.histories)
        for rows in some.shuffled(16, 1):
            assert torch.equal(some.batch(rows).histories, all_rows.batch(rows).histories)
    # what RecBole's own loader makes of both
    torch.manual_seed(0)
    batches = list(ours[0])
    torch.manual_seed(0)
    for one, other in zip(batches, stock[0], strict=True):
        assert set(one.columns) == set(other.columns)
        assert all(torch.equal(one[name], other[name]) for name in one.columns)


def test_a_data_set_is_kept_and_read_again(loaders):
    dataset = loaders(WithoutText, "TIGER")[2]._dataset
    again = pickle.loads(pickle.dumps(dataset.inter_feat))
    assert torch.equal(again["item_id_list"][:, :], dataset.inter_feat["item_id_list"][:, :])
    assert "item_id_list" in again and "item_id" in again and "rating" not in again
    assert torch.equal(again[[2, 0]]["item_id_list"][:, :], again["item_id_list"][:, :][[2, 0]])


def test_events_with_numbers_to_normalise_are_left_to_recbole(loaders):
    train = loaders(WithoutText, "TIGER", numerical_features=["timestamp"])[0]
    assert train._dataset.inter_feat["timestamp_list"].shape[1:] == (4, 2)
