"""Trainings of RecBole's models that are stopped and resumed in another process's stead."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer

from recbole_stream.errors import InputError
from recbole_stream.host.run import job
from recbole_stream.host.run.job import configure, run_job
from recbole_stream.reporting.curves import read_curves

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


# 49 batches an epoch: killed in the second epoch and, taken up after the first, in the third
@pytest.mark.parametrize("name", MODELS)
def test_ends_with_the_weights_and_metrics_of_a_run_in_one_go(train, name):
    whole = train(name, "whole")
    for batches in (60, 70):
        with pytest.raises(Killed):
            train(name, "parts", batches)
        assert Path("parts/progress", name, "seed2020-epochs.pth").exists()
    assert_same(train(name, "parts"), whole)


def test_sampled_negatives_and_early_stopping_go_on_too(train):
    sampled = {
        "loss_type": "BPR", "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1},
        "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni50"},
        "stopping_step": 0, "learning_rate": 0.1, "epochs": 30, "worker": 1,
    }  # fmt: skip
    whole = train("GRU4Rec", "whole", **sampled)
    (stage,) = read_curves("whole", "GRU4Rec", 2020)
    assert 1 < len(stage["curves"]) < 30
    with pytest.raises(Killed):
        train("GRU4Rec", "parts", 60, **sampled)
    assert_same(train("GRU4Rec", "parts", **sampled), whole)
    (again,) = read_curves("parts", "GRU4Rec", 2020)
    for epoch in (*stage["curves"], *again["curves"]):
        del epoch["seconds"]
    assert again["curves"] == stage["curves"]


def test_a_run_killed_while_it_ranks_is_not_trained_again(train, monkeypatch):
    def killed(*arguments):
        raise Killed

    whole = train("SASRec", "whole", epochs=2)
    with monkeypatch.context() as context, pytest.raises(Killed):
        context.setattr(job, "rank_users", killed)
        train("SASRec", "parts", epochs=2)
    assert_same(train("SASRec", "parts", batches=0, epochs=2), whole)


@pytest.mark.parametrize("eval_step", [1, 2])
def test_time_that_is_up_ends_a_training_after_its_next_validation(train, caplog, eval_step):
    # the best of as many epochs as were validated until then, as if there had been no more
    whole = train("SASRec", "whole", epochs=eval_step, eval_step=eval_step)
    with caplog.at_level("INFO"):
        limited = train("SASRec", "limited", max_train_seconds=1e-6, eval_step=eval_step, state="info")
    assert f"SASRec ends after {eval_step} epochs" in caplog.text
    assert_same(limited, whole)
    assert_same(train("SASRec", "limited", batches=0, max_train_seconds=1e-6, eval_step=eval_step), whole)  # has ended


def test_a_limit_that_is_no_number_of_seconds_is_refused(train):
    with pytest.raises(InputError, match="max_train_seconds is 'long', but must be a number of at least 0"):
        train("SASRec", "run", max_train_seconds="long")
