"""What RecBole's ``Trainer`` promises, kept or refused by ours."""

import sys
import types
from pathlib import Path

import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.quick_start import run_recbole
from recbole.utils import get_model, get_trainer

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import check_keys, known_keys
from recbole_stream.host.run.commands import main
from recbole_stream.host.trainer import Stage
from recbole_stream.training.loop import StageResult

SMALL = {
    "text_fields": ["movie_title"], "codebook_size": 32, "codebook_levels": 3, "hidden_size": 16, "inner_size": 32,
    "n_heads": 2, "head_size": 8, "encoder_layers": 1, "decoder_layers": 1, "beam_size": 10, "epochs": 2,
    "train_batch_size": 2048, "show_progress": False, "use_gpu": False, "state": "error",
}  # fmt: skip
STREAMREC = {
    "stages": ["pretrain", "match"], "pretrain_epochs": 2, "matching_epochs": 1, "candidates": 10, "verifier_size": 0,
}  # fmt: skip


@pytest.fixture
def keys(tiny_ml100k, cache):
    return SMALL | {"data_path": tiny_ml100k, "cache_dir": cache, "checkpoint_dir": "saved"}


def prepared(name, keys):
    config = Config(model=name, dataset="tiny", config_dict=keys)
    torch.manual_seed(0)
    train, valid, test = data_preparation(config, create_dataset(config))
    model = get_model(name)(config, train._dataset)
    return get_trainer(config["MODEL_TYPE"], name)(config, model), train, valid, test


@pytest.fixture
def wandb(monkeypatch):
    """A module in the place of Weights & Biases, which keeps what RecBole's logger gives it."""
    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(origin="here")
    module.run, module.logged = None, []

    def init(project, config):
        module.run = types.SimpleNamespace(summary={})

    module.init, module.define_metric = init, lambda name, step_metric: None
    module.log = lambda metrics, commit: module.logged.append(metrics)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_every_epoch_of_every_stage_is_logged_and_called_back(keys, wandb):
    trainer, train, valid, test = prepared("STREAMRec", keys | STREAMREC | {"log_wandb": True})
    called = []
    trainer.fit(train, valid, saved=False, callback_fn=lambda epoch, score: called.append((epoch, score)))
    trained = [record for record in wandb.logged if "train_step" in record]
    assert [record["train_step"] for record in trained] == [record["train/epoch"] for record in trained] == [0, 1, 2]
    assert [record["train/train_loss"] for record in trained] == list(trainer.train_loss_dict.values())
    assert [stage.result.epochs for stage in trainer.stages] == [2, 1, 0]
    assert "train/States/valid" in trained[2]
    # three epochs and the deliberation, with all metrics
    validated = [record for record in wandb.logged if "valid_step" in record]
    assert [record["valid_step"] for record in validated] == [0, 1, 2, 3]
    assert {"valid/recall@5", "valid/ndcg@10"} < set(validated[0])
    assert called == [(step, validated[step]["valid/ndcg@10"]) for step in range(3)]
    assert validated[3]["valid/ndcg@10"] == trainer.stages[2].result.valid["ndcg@10"]
    tested = trainer.evaluate(test, load_best_model=False)
    assert wandb.run.summary == {f"eval/{name}": value for name, value in tested.items()}
    # saved=False: nothing is written, and the model holds what the best stage ended with
    assert not list(Path("saved").iterdir()) and trainer.final.file is None
    weights = trainer.model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in trainer.final_weights.items())


def test_run_recbole_without_saving(keys):
    result = run_recbole("TIGER", "tiny", config_dict=keys, saved=False)
    assert not list(Path("saved").iterdir()) and result["test_result"]["recall@10"] >= 0


def test_a_metric_that_is_better_when_smaller_chooses_the_smallest(keys):
    keys |= {"metrics": ["GiniIndex", "Recall"], "valid_metric": "GiniIndex@10", "epochs": 3, "learning_rate": 0.02}
    trainer, train, valid, _ = prepared("TIGER", keys)
    scores = []
    best, result = trainer.fit(train, valid, saved=False, callback_fn=lambda _, score: scores.append(score))
    assert len(set(scores)) > 1 and best == min(scores) == result["giniindex@10"]
    again = trainer.evaluate(valid, load_best_model=False)
    assert again["giniindex@10"] == pytest.approx(best, abs=1e-6)
    # and among stages
    trainer.stages = [Stage(StageResult(str(gini), {"giniindex@10": gini}), None, 0.0) for gini in (0.5, 0.3, 0.4)]
    assert trainer.final.result.name == "0.3"


def test_a_checkpoint_is_no_progress(keys):
    trainer, *_ = prepared("TIGER", keys)
    with pytest.raises(InputError, match=r"x\.pth holds no progress of TIGER: set resume_dir"):
        trainer.resume_checkpoint("x.pth")


@pytest.mark.parametrize("key", ["learner", "clip_grad_norm", "enable_amp", "enable_scaler", "reg_weight", "shuffle"])
@pytest.mark.parametrize("model", ["TIGER", "STREAMRec"])
def test_keys_of_recboles_trainers_that_ours_do_not_follow_are_refused(model, key):
    with pytest.raises(InputError, match=f"^{key} has no effect on {model}, whose trainer is not RecBole's: "):
        check_keys([key], known_keys(model), model)
    check_keys([key], known_keys("SASRec"), "SASRec")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=TIGER", "--learner=sgd"], "learner has no effect on TIGER"),
        (["--model=SASRec", "--eval_step=0"], "eval_step is 0, but must be a whole number of at least 1."),
        (["--model=TIGER", "--eval_step=0"], "eval_step is 0, but must be a whole number of at least 1."),
        (["--model=SASRec", "--epochs=0"], "epochs is 0, but must be a whole number of at least 1."),
        (["--model=SASRec", "--checkpoint_dir=mine"], "checkpoint_dir is set, but a run keeps all its files in one"),
        (["--model=TIGER", "--resume_dir=mine"], "resume_dir is set, but a run keeps all its files in one folder"),
        (["--model=TIGER", "--log_wandb=True"], "log_wandb needs Weights & Biases"),
        (["--model=TIGER", "--equal_time=True"], "--equal_time gives TIGER the time that STREAMRec takes"),
        (["--model=STREAMRec", "--equal_time=1"], "--equal_time is 1, but must be True or False."),
        (
            ["--model=STREAMRec", "--equal_time=True", "--max_train_seconds=9"],
            "Both equal_time and max_train_seconds are given",
        ),
    ],
)
def test_what_a_run_cannot_keep_is_refused_in_one_sentence(arguments, message, tiny_ml100k, capsys):
    assert main([*arguments, "--dataset=tiny", f"--data_path={tiny_ml100k}", "--output_dir=out"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("out").exists()
