"""Sweeps without Ray: settings, one sentence for bad input, trials that are resumed, what comes out."""

import json
import os
from pathlib import Path

import pytest
import yaml

from recbole_stream.errors import InputError
from recbole_stream.host.configuration import known_keys
from recbole_stream.host.paths import properties_dir
from recbole_stream.host.tuning.space import Trial, parse_space, read_trial, write_trial
from recbole_stream.host.tuning.sweep import _planned, _read_space, _write, main
from recbole_stream.host.tuning.trial import Sweep, _History, read_sweep, run_trial

TINY = {"text_fields": ["movie_title"], "codebook_size": 32, "codebook_levels": 3, "hidden_size": 16, "inner_size": 32,
        "n_heads": 2, "head_size": 8, "encoder_layers": 1, "decoder_layers": 1, "beam_size": 10, "epochs": 3}  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


def sweep_of(folder: Path, model: str, keys: dict, **changes) -> Sweep:
    settings = {"command": ["run_hyper.py"], "space": {"dropout": {"choice": [0.1, 0.2]}}, "trials": 1, "seed": 1,
                "search": "random", "scheduler": "none", "cpus": 1, "gpus": 0, "metric": "ndcg@10", "bigger": True,
                "max_epochs": 3}  # fmt: skip
    sweep = Sweep(folder=folder, model=model, dataset="tiny", keys=keys, **(settings | changes))
    sweep.write()
    return sweep


class Killed(BaseException):
    """Not an Exception, as the end of a process is none."""


def test_a_killed_trial_goes_on_and_repeats_its_reports(tiny_ml100k, cache, tmp_path):
    keys = TINY | {"data_path": tiny_ml100k, "cache_dir": cache}
    whole, torn = (sweep_of(tmp_path / name, "TIGER", keys) for name in ("whole", "torn"))
    for sweep in (whole, torn):
        write_trial(sweep.trial_folder(1), Trial(1, {"dropout": 0.2}))
    expected = []
    run_trial(whole, 1, "n1", expected.append)
    assert [line["epoch"] for line in expected] == [1, 2, 3]

    def until_the_second(line: dict) -> None:
        if line["epoch"] == 2:
            raise Killed

    with pytest.raises(Killed):
        run_trial(torn, 1, "n1", until_the_second)
    assert read_trial(torn.trial_folder(1)).state == "running"
    reports = []
    run_trial(torn, 1, "n2", reports.append)
    assert reports == expected  # the first two repeated, the third trained
    trial = read_trial(torn.trial_folder(1))
    assert trial.state == "finished" and trial.nodes == ["n1", "n2"]
    assert trial.valid == read_trial(whole.trial_folder(1)).valid
    assert trial.valid["ndcg@10"] == max(line["valid"] for line in trial.epochs)
    assert (torn.trial_folder(1) / trial.checkpoint).is_file()
    assert not (torn.trial_folder(1) / "progress").exists()
    # the test users were ranked by nobody
    assert "test" not in json.loads((torn.trial_folder(1) / "trial.json").read_text())

    reports.clear()
    run_trial(torn, 1, "n3", reports.append)  # by a sweep that had not heard of its end
    assert reports == expected and read_trial(torn.trial_folder(1)).nodes == ["n1", "n2"]


def test_epochs_of_all_stages_are_counted_on_and_what_follows_them_counts(tiny_ml100k, cache, tmp_path):
    Path("space.yaml").write_text("dropout: {choice: [0.1, 0.2]}")
    keys = {"similar_items": 5, "reasoning_steps": 2, "pretrain_epochs": 2, "finetune_epochs": 1, "reinforce_epochs": 1,
            "matching_epochs": 1, "pointer_size": 0, "reinforce_samples": 64, "reinforce_batch_size": 32, "group_size": 4}  # fmt: skip
    sizes = {key: value for key, value in TINY.items() if key != "epochs"}
    sweep = _planned(
        {"model": ["STREAMRec"], "dataset": "tiny", "data_path": tiny_ml100k, "cache_dir": cache, "space": "space.yaml",
         "output_dir": "out"} | sizes | keys, [],
    )  # fmt: skip
    sweep.write()
    write_trial(sweep.trial_folder(1), Trial(1, {"dropout": 0.1}))
    reports = []
    run_trial(sweep, 1, "n1", reports.append)
    trial = read_trial(sweep.trial_folder(1))
    assert trial.state == "finished", trial.error
    # 2 + 1 + 1 + 1; a line more where deliberation, which follows them, beats them all
    epochs = [line["epoch"] for line in trial.epochs]
    assert epochs in ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 5]) and sweep.max_epochs == 5
    assert trial.best(bigger=True)["valid"] == trial.valid["ndcg@10"] == reports[-1]["valid"]
    assert [line["epoch"] for line in reports] == epochs


def test_what_follows_the_last_epoch_is_noted_once_and_only_where_it_is_better(tmp_path):
    reports = []
    for end, expected in ((0.4, [0.3, 0.2, 0.4]), (0.25, [0.3, 0.2])):
        folder = tmp_path / str(end)
        write_trial(folder, Trial(1, {}))
        history = _History(folder, read_trial(folder), True, reports.append)
        history.add(1, 0.3)
        history.add(2, 0.2)
        history.conclude(end)
        again = _History(folder, read_trial(folder), True, reports.append)  # of a worker that was lost at the very end
        again.conclude(end)
        assert [line["valid"] for line in read_trial(folder).epochs] == expected


def test_a_trial_that_fails_is_recorded_and_does_not_raise(tiny_ml100k, tmp_path):
    sweep = sweep_of(tmp_path / "sweep", "SASRec", {"data_path": tiny_ml100k, "hidden_size": 16, "epochs": 1})
    write_trial(sweep.trial_folder(1), Trial(1, {"n_heads": 3}))
    reports = []
    run_trial(sweep, 1, "n1", reports.append)
    trial = read_trial(sweep.trial_folder(1))
    assert (trial.state, reports, trial.epochs) == ("failed", [], [])
    assert "is not a multiple of the number of attention heads (3)" in trial.error and "\n" not in trial.error
    assert "Traceback" in (sweep.trial_folder(1) / "error.txt").read_text()


def test_a_training_that_diverges_is_recorded(tiny_ml100k, tmp_path):
    keys = {"data_path": tiny_ml100k, "hidden_size": 16, "n_layers": 1, "epochs": 2, "learner": "sgd"}
    sweep = sweep_of(tmp_path / "sweep", "SASRec", keys)
    write_trial(sweep.trial_folder(1), Trial(1, {"learning_rate": 1e30}))
    run_trial(sweep, 1, "n1", lambda line: None)
    trial = read_trial(sweep.trial_folder(1))
    assert trial.state == "failed" and "nan" in trial.error.lower()


# -- settings ----------------------------------------------------------------


@pytest.fixture
def space() -> str:
    Path("space.yaml").write_text("dropout: {choice: [0.1, 0.2]}\nlearning_rate: {loguniform: [1e-4, 1e-2]}\n")
    return "--space=space.yaml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--trials=2"], "--model names 0"),
        (["--model=TIGER,SASRec"], "--model names 2"),
        (["--model=TIGRE"], "There is no model 'TIGRE'"),
        (["--model=TIGER", "--trials=0"], "--trials is 0, but must be a whole number of at least 1"),
        (["--model=TIGER", "--trials=few"], "--trials is 'few'"),
        (["--model=TIGER", "--cpus-per-trial=0"], "--cpus-per-trial is 0, but must be a number above 0"),
        (["--model=TIGER", "--gpus-per-trial=-1"], "--gpus-per-trial is -1, but must be a number of at least 0"),
        (["--model=TIGER", "--search=grid"], "--search is 'grid', but must be random or hyperopt"),
        (["--model=TIGER", "--scheduler=pbt"], "--scheduler is 'pbt', but must be asha or none"),
        (["--model=TIGER", "--space=none.yaml"], "There is no space none.yaml"),
        (["--model=NARM"], "NARM comes without one"),
        (["--model=TIGER", "--dataset=nowhere"], "There is no data set 'nowhere'"),
        (["--model=TIGER", "--learning_rat=1"], "did you mean 'learning_rate'"),
        (["--model=TIGER", "--dropout=0.1", "--learning_rate=0.1"], "Every key of space.yaml is given a value"),
        (["--model=SASRec"], "Unknown key 'dropout'"),
        (["--model=TIGER", "--beam_size=3"], "beam_size is 3, but topk asks for 10"),
        (["--resume=nothing"], "nothing holds no sweep to go on with"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(arguments, message, space, capsys):
    own = [] if any(word in arg for arg in arguments for word in ("--space", "NARM", "--resume")) else [space]
    assert main([*arguments, *own, "--output_dir=out"] if "--resume=nothing" not in arguments else arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error and error.count("\n") == 1
    assert not Path("out").exists()


def test_values_that_a_model_cannot_have_stop_before_any_trial(capsys):
    Path("space.yaml").write_text("dropout: {uniform: [0.1, 2.0]}")
    assert main(["--model=TIGER", "--space=space.yaml", "--output_dir=out"]) == 2
    assert "dropout is 2.0, but must be a number between 0 and 0.9" in capsys.readouterr().err


def test_without_ray_the_command_says_what_to_install(space, monkeypatch, capsys):
    import importlib.util

    stock = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else stock(name, *rest))
    assert main(["--model=TIGER", space, "--output_dir=out"]) == 2
    assert "Tuning needs Ray: run `pip install" in capsys.readouterr().err and not Path("out").exists()


def test_workers_get_absolute_paths_and_typed_values(tiny_ml100k, space):
    options = {"model": ["TIGER"], "dataset": "tiny", "space": "space.yaml", "data_path": os.path.relpath(tiny_ml100k),
               "text_fields": ["movie_title"], "epochs": 5, "dropout": 0.3, "output_dir": "out"}  # fmt: skip
    sweep = _planned(options, ["run_hyper.py"])
    assert sweep.keys["data_path"] == tiny_ml100k and sweep.keys["cache_dir"] == str(Path("cache").resolve())
    assert sweep.folder == Path("out").resolve() and sweep.max_epochs == 5
    assert (sweep.metric, sweep.bigger) == ("ndcg@10", True)
    # numbers, not PyYAML's strings; what is set is not searched
    assert sweep.space == {"learning_rate": {"loguniform": [1e-4, 1e-2]}} and sweep.keys["dropout"] == 0.3
    sweep.write()
    assert read_sweep(Path("out")) == sweep


def test_a_resumed_sweep_may_only_move_and_grow(tmp_path, capsys):
    sweep_of(tmp_path / "sweep", "TIGER", {})
    assert main(["--resume=sweep", "--epochs=9"]) == 2
    assert "A resumed sweep keeps its settings: leave --epochs out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "model", ["STREAMRec", "TIGER", "SASRec", "BERT4Rec", "GRU4Rec", "Caser", "LookUp", "LateFusion", "RPG"]
)
def test_the_spaces_that_come_with_the_project_fit_their_models(model):
    raw, source = _read_space(None, model)
    assert source == properties_dir() / "tune" / f"{model}.yaml"
    space = parse_space(raw, source)
    assert set(space) <= known_keys(model)
    assert len(space) == 5  # as many to choose for each model


@pytest.mark.ray
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address=local", "--cpus-per-trial=0"], "--cpus-per-trial is 0, but must be a number above 0"),
        (["--address=local", "--nproc=2"], "Both --address and --nproc are given"),
    ],
)
def test_a_run_that_cannot_be_spread_writes_nothing(arguments, message, tiny_ml100k):
    from recbole_stream.host.run import runner

    options = {"model": ["SASRec"], "dataset": "tiny", "data_path": tiny_ml100k, "output_dir": "out"}
    given = dict(argument.removeprefix("--").split("=") for argument in arguments)
    with pytest.raises(InputError, match=message):
        runner.run(options | {key: int(value) if value.isdigit() else value for key, value in given.items()}, [])
    assert not Path("out").exists()


# -- what comes out ----------------------------------------------------------


def test_the_best_configuration_holds_the_keys_and_not_the_machine(tmp_path, capsys):
    keys = {"data_path": "/data", "cache_dir": "/cache", "epochs": 3, "text_fields": ["movie_title"]}
    sweep = sweep_of(tmp_path / "sweep", "TIGER", keys, trials=2)
    for number, valid in ((1, 0.1), (2, 0.2)):
        write_trial(
            sweep.trial_folder(number), Trial(number, {"dropout": 0.1 * number, "learning_rate": 1e-5}, "finished")
        )
        (sweep.trial_folder(number) / "epochs.jsonl").write_text(
            json.dumps({"epoch": 1, "valid": valid, "seconds": 1.0}) + "\n"
        )
    _write(sweep)
    assert yaml.safe_load((sweep.folder / "best.yaml").read_text()) == {
        "epochs": 3, "text_fields": ["movie_title"], "dropout": 0.2, "learning_rate": 1e-5,
    }  # fmt: skip
    assert {"trials.md", "trials.csv", "search.png"} <= {file.name for file in sweep.folder.iterdir()}
    assert f"--data_path=/data --config_files={sweep.folder / 'best.yaml'}" in capsys.readouterr().out


def test_a_sweep_without_a_single_success_says_why(tmp_path):
    sweep = sweep_of(tmp_path / "sweep", "TIGER", {})
    write_trial(sweep.trial_folder(1), Trial(1, {"dropout": 0.1}, "failed", error="no memory"))
    with pytest.raises(InputError, match="All 1 trials failed, the first because: no memory"):
        _write(sweep)
    assert not (sweep.folder / "best.yaml").exists()
