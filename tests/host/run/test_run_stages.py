"""The key ``stages``: what is trained, what the table shows, and which lists are refused."""

import json
from pathlib import Path

import pytest
from recbole.quick_start import load_data_and_model

from recbole_stream.host.configuration import quiet_argv
from recbole_stream.host.dataset import samples_of
from recbole_stream.host.keys import RULES
from recbole_stream.host.run import job
from recbole_stream.host.run.commands import main
from recbole_stream.host.run.runner import _names
from recbole_stream.host.tuning.sweep import _epochs


@pytest.fixture
def small(small):
    return [*small, "--train_batch_size=2048"]


def rows(folder, model="STREAMRec"):
    written = json.loads(Path(folder, "results.json").read_text())
    return [row for row in written if row["model"] == model]


def test_match_alone_trains_resumes_ranks_and_loads(small, monkeypatch, caplog):
    caplog.set_level("INFO")
    rank = job.rank_users

    def killed(trainer, *others):
        if trainer.config["model"] == "STREAMRec":
            raise KeyboardInterrupt
        return rank(trainer, *others)

    with monkeypatch.context() as patch:
        patch.setattr(job, "rank_users", killed)
        assert main(["--model=STREAMRec", "--stages=[match]", "--output_dir=out", *small]) == 130
    assert main(["--resume=out"]) == 0
    assert "States: resumed after 1 epochs" in caplog.text
    states, deliberation = rows("out")
    assert (states["stage"], deliberation["stage"]) == ("States", "Deliberation")
    # what generates is not trained, so its parameters rank nothing and the likelihood weighs nothing
    assert states["parameters"] == deliberation["parameters"]
    (file,) = Path("out/checkpoints").glob("STREAMRec*Deliberation.pth")
    with quiet_argv():
        _, model, _, _, _, test = load_data_and_model(str(file))
    weights = model.network.deliberation.weights
    assert weights[0] == 0 and weights[1:].any()
    model.eval()
    samples = samples_of(test._dataset)
    items, _ = model.rank(samples.histories.to_dense(), 10)
    recall = (items == samples.targets[:, None]).any(1).float().mean()
    assert deliberation["test"]["recall@10"] == pytest.approx(float(recall), abs=1e-6)


def test_a_subset_gives_the_rows_of_its_stages_which_do_not_depend_on_the_others(small):
    first, second = "--stages=[pretrain, match]", "--stages=[pretrain, finetune, match]"
    assert main(["--model=STREAMRec", first, "--output_dir=some", *small]) == 0
    assert main(["--model=STREAMRec", second, "--equal_time=True", "--output_dir=more", *small]) == 0
    some, more = rows("some"), rows("more")
    assert [row["stage"] for row in some] == ["PT", "States", "Deliberation"]
    assert [row["stage"] for row in more] == ["PT", "SFT", "States", "Deliberation"]
    assert (more[0]["valid"], more[0]["test"]) == (some[0]["valid"], some[0]["test"])
    # the clock limits TIGER only where that is asked for
    (free,), (limited,) = rows("some", "TIGER"), rows("more", "TIGER")
    assert not free["run"]["configuration"]["max_train_seconds"]
    assert limited["run"]["configuration"]["max_train_seconds"] == more[-1]["train_seconds"] > 0
    first = json.loads(Path("more/results.json").read_text())[0]["model"]
    assert first == "TIGER"  # the table's order is not that of training


@pytest.mark.parametrize(
    "stages",
    [
        ["match"],
        ["pretrain"],
        ["pretrain", "match"],
        ["pretrain", "finetune"],
        ["pretrain", "finetune", "match"],
        ["pretrain", "finetune", "reinforce"],
        ["pretrain", "finetune", "reinforce", "match"],
        ["finetune", "match"],  # these four with start_from
        ["finetune"],
        ["reinforce"],
        ["finetune", "reinforce", "match"],
    ],
)
def test_lists_that_make_sense(stages):
    assert RULES["stages"].accepts(stages)


@pytest.mark.parametrize(
    "stages",
    [
        [],
        None,
        "match",
        ["pretrain", "reinforce"],
        ["reinforce", "finetune"],
        ["match", "pretrain"],
        ["pretrain", "pretrain"],
        ["match", "match"],
        ["pretrain", "rest"],
        [1],
    ],
)
def test_lists_that_do_not(stages):
    assert not RULES["stages"].accepts(stages)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages=[reinforce]"], "reinforce needs finetune"),
        (["--stages=[pretrain, reinforce]"], "reinforce needs finetune"),
        (["--stages=[match]", "--matching_epochs=0"], "matching_epochs is 0: set that to at least 1"),
        (["--stages=[pretrain, match]", "--preset=paper"], "matching_epochs is 0: set that to at least 1"),
        (
            ["--stages=[match]", "--views_off=[matching, transitions, text, repeats]"],
            "views_off names all other views: leave one on.",
        ),
    ],
)
def test_bad_lists_are_one_sentence_before_training(small, arguments, message, capsys):
    small = [argument for argument in small if not argument.startswith("--matching_epochs")]
    assert main(["--model=STREAMRec", "--output_dir=out", *small, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not Path("out/checkpoints").exists()


def test_a_sweeps_trial_counts_the_epochs_of_its_stages(small, tiny_ml100k):
    keys = {"data_path": tiny_ml100k, "stages": ["match"], "matching_epochs": 3, "show_progress": False}
    config = job.configure("STREAMRec", ["STREAMRec"], "tiny", keys, Path("out"))
    assert _epochs(config, {}) == 3


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"model": ["STREAMRec"]}, ["TIGER", "STREAMRec"]),
        ({"model": ["STREAMRec"], "stages": ["pretrain", "match"]}, ["TIGER", "STREAMRec"]),
        ({"model": ["STREAMRec"], "stages": ["match"]}, ["STREAMRec"]),
        ({"model": ["TIGER", "STREAMRec"], "stages": ["match"]}, ["TIGER", "STREAMRec"]),
        ({"model": ["STREAMRec"], "config_files": ["match.yaml"]}, ["STREAMRec"]),
    ],
)
def test_tiger_joins_a_model_that_generates(tmp_path, options, names):
    (tmp_path / "match.yaml").write_text("stages: [match]\n")
    assert _names(options) == names
