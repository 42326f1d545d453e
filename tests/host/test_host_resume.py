"""Trainings of RecBole's models that are stopped and taken up again in another process's stead."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.utils import init_seed

from recbole_stream.host.job import configure, run_job

SMALL = {
    "epochs": 4, "hidden_size": 16, "embedding_size": 16, "inner_size": 16, "n_layers": 1, "n_heads": 2, "nv": 2, "nh": 2,
    "train_batch_size": 256, "MAX_ITEM_LIST_LENGTH": 10, "learning_rate": 0.01, "show_progress": False, "gpu_id": "",
    "state": "error",
}  # fmt: skip
MODELS = ("SASRec", "GRU4Rec", "Caser", "BERT4Rec")


class Killed(BaseException):
    pass


@pytest.fixture
def train(tiny_ml100k, monkeypatch):
    """Train a model in a folder, as if in a process of its own, and stop after so many batches."""

    def train(name, folder, batches=None, **changes):
        torch.manual_seed(99), np.random.seed(99), random.seed(99)
        options = SMALL | {"dataset": "tiny", "data_path": tiny_ml100k} | changes
        names = [name, *MODELS]  # whose keys are in there
        config = configure(name, names, "tiny", options, Path(folder))
        Path(folder).mkdir(exist_ok=True)
        from recbole.trainer import Trainer

        stock, left = Trainer._check_nan, iter(range(10**9 if batches is None else batches))

        def check_nan(self, loss):
            if next(left, None) is None:
                raise Killed
            return stock(self, loss)

        monkeypatch.setattr(Trainer, "_check_nan", check_nan)
        try:
            (row,) = run_job(config, Path(folder), ["python", "run_recbole.py"])
        finally:
            monkeypatch.setattr(Trainer, "_check_nan", stock)
        (checkpoint,) = Path(folder, "checkpoints").glob("*.pth")
        return row, torch.load(checkpoint, weights_only=False)["state_dict"]

    return train


def assert_same(first, second):
    (row, weights), (other, others) = first, second
    assert (row.valid, row.test) == (other.valid, other.test)
    assert weights.keys() == others.keys()
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


# about 40 batches an epoch: killed in the second and in the fourth
@pytest.mark.parametrize("name", MODELS)
def test_ends_with_the_weights_and_metrics_of_a_run_in_one_go(train, name):
    whole = train(name, "whole")
    for batches in (60, 70):
        with pytest.raises(Killed):
            train(name, "parts", batches)
    assert_same(train(name, "parts"), whole)
