"""Two processes on a CPU: the run, its metrics and its checkpoint."""

import functools
import os
import socket
from pathlib import Path

import pytest
import recbole.quick_start
import torch
from recbole.utils import ensure_dir, get_trainer

from recbole_stream.errors import InputError
from recbole_stream.host.launcher import run_distributed


@pytest.fixture
def keys(tiny_ml100k):
    return {
        "data_path": tiny_ml100k,
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        # 9 users: the two processes evaluate 5 and 4 of them
        "val_interval": {"user_id": [str(user) for user in range(1, 10)]},
        "MAX_ITEM_LIST_LENGTH": 10,
        "hidden_size": 16,
        "inner_size": 16,
        "epochs": 2,
        "train_neg_sample_args": None,
        "train_batch_size": 512,
        "eval_batch_size": 4,
        "learning_rate": 0.01,
        "metrics": ["Recall", "NDCG", "MRR"],
        "topk": [50, 200],
        "valid_metric": "NDCG@200",
        "metric_decimal_place": 12,
        "show_progress": False,
        "state": "error",
        "gpu_id": "",
    }


def assert_is_the_exact_average(test_result):
    """The same checkpoint evaluated by one process gives the same numbers."""
    (checkpoint,) = Path("saved").glob("SASRec-*.pth")
    config, model, _, _, _, test_data = recbole.quick_start.load_data_and_model(str(checkpoint))
    trainer = get_trainer(config["MODEL_TYPE"], "SASRec")(config, model)
    alone = trainer.evaluate(test_data, load_best_model=False)
    assert len(test_data._dataset) == 9
    # rounded to 12 places in each process, averaged in float32
    assert test_result == pytest.approx(dict(alone), rel=1e-6)
    assert alone["recall@200"] > 0


@pytest.mark.parametrize("start", ["our launcher", "stock run"])
def test_two_processes_train_and_average_over_users(keys, start):
    if start == "our launcher":
        run = run_distributed
    else:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = str(probe.getsockname()[1])
        run = functools.partial(recbole.quick_start.run, port=port)
    before = dict(keys)
    result = run("SASRec", "tiny", config_dict=keys, nproc=2)
    assert_is_the_exact_average(result["test_result"])
    if start == "our launcher":
        assert keys == before


def test_a_folder_made_by_another_process_in_between_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: False)  # as the slower process saw it
    ensure_dir(str(tmp_path))
    ensure_dir(str(tmp_path / "new"))
    assert (tmp_path / "new").is_dir()


def test_a_mistake_in_the_input_comes_back_as_one_sentence(keys):
    keys |= {"epochs": 0, "preset": "no such preset"}
    with pytest.raises(InputError, match="^preset is 'no such preset', but TIGER has only"):
        run_distributed("TIGER", "tiny", keys, nproc=2)


def test_two_processes_take_the_steps_of_one(keys):
    """Each batch is shared and gradients are averaged over its samples: the same weights within rounding."""
    ours = {
        "text_fields": ["movie_title"], "codebook_size": 16, "codebook_levels": 3, "n_heads": 2, "head_size": 8,
        "encoder_layers": 1, "decoder_layers": 1, "beam_size": 200, "dropout": 0.0, "precision": "float32",
        "cache_dir": "cache", "topk": [5, 10], "valid_metric": "NDCG@10", "learning_rate": 1e-3, "warmup_steps": 0,
    }  # fmt: skip
    keys = {key: value for key, value in keys.items() if key not in ("train_batch_size",)} | ours
    together = run_distributed("TIGER", "tiny", keys | {"train_batch_size": 64, "checkpoint_dir": "two"}, nproc=2)
    alone = recbole.quick_start.run_recbole(
        model="TIGER", dataset="tiny", config_dict=keys | {"train_batch_size": 64, "checkpoint_dir": "one"}
    )
    assert together["test_result"] == pytest.approx(dict(alone["test_result"]), rel=1e-6)
    (one,), (two,) = Path("one").glob("*.pth"), Path("two").glob("*.pth")
    weights = [torch.load(file, weights_only=False)["state_dict"] for file in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-3, atol=1e-4)
